"""Natural scene statistics: what BRISQUE and NIQE measure of a picture, in torch and differentiable.

Legend: ``N`` pictures, ``n`` values of one of them. Pictures are luma ``[N, H, W]`` in 0 to 255.

A picture's coefficients, less their local mean and over their local deviation (MSCN), follow a generalised Gaussian
where it is natural; products of neighbours an asymmetric one. Its shape, mean and two widths are the features.

Sources: Mittal, Moorthy and Bovik (2012), eq. 1 to 13 (BRISQUE); Mittal, Soundararajan and Bovik (2013) (NIQE);
Lasmar et al. (2009) for the moment estimate of an asymmetric generalised Gaussian.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

WINDOW, SIGMA = 7, 7 / 6
"""Side and deviation of the Gaussian window of local mean and deviation."""
SATURATION = 1.0
"""Added to the local deviation: in a flat place there is nothing to divide by."""
SHAPES = (0.2, 10.0, 0.001)
"""Range and step of the shape that is looked up; between two steps it is interpolated, which carries the gradient."""
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Right, below, and the two diagonals."""
EPSILON = 1e-12


@dataclass(frozen=True)
class Fit:
    """An asymmetric generalised Gaussian, each ``[N]``: `left` and `right` are its deviations below and above 0."""

    shape: Tensor
    left: Tensor
    right: Tensor

    @property
    def scale(self) -> Tensor:
        """By which a deviation becomes the distribution's own width (beta)."""
        return torch.exp((torch.lgamma(1 / self.shape) - torch.lgamma(3 / self.shape)) / 2)

    @property
    def mean(self) -> Tensor:
        """``(beta right - beta left) gamma(2 / shape) / gamma(1 / shape)``."""
        ratio = torch.exp(torch.lgamma(2 / self.shape) - torch.lgamma(1 / self.shape))
        return (self.right - self.left) * self.scale * ratio


def luma(frames: Tensor) -> Tensor:
    """``[N, 3, H, W]`` in [0, 1] to ``[N, H, W]`` in 0 to 255, weighted as in ITU-R BT.601."""
    return torch.einsum("nchw,c->nhw", frames, frames.new_tensor([0.299, 0.587, 0.114])) * 255


def mscn(picture: Tensor) -> Tensor:
    """``[N, H, W]``; beyond its edges a picture is 0, as in the published code."""
    axis = torch.arange(WINDOW, device=picture.device, dtype=picture.dtype) - WINDOW // 2
    kernel = torch.exp(-0.5 * (axis / SIGMA).square())
    kernel = kernel / kernel.sum()

    def local(x: Tensor) -> Tensor:
        rows = functional.conv2d(x[:, None], kernel.view(1, 1, 1, -1), padding=(0, WINDOW // 2))
        return functional.conv2d(rows, kernel.view(1, 1, -1, 1), padding=(WINDOW // 2, 0))[:, 0]

    mean = local(picture)
    variance = (local(picture.square()) - mean.square()).abs()
    return (picture - mean) / ((variance + EPSILON).sqrt() + SATURATION)


def products(coefficients: Tensor) -> list[Tensor]:
    """Each coefficient times its neighbour in each of four directions, ``[N, H, W]``, round the edge."""
    return [coefficients * coefficients.roll(shift, (1, 2)) for shift in NEIGHBOURS]


def fit(values: Tensor) -> Fit:
    """Moment estimate of ``[N, n]``."""
    below, above = values.clamp(max=0), values.clamp(min=0)
    left = (below.square().sum(1) / (values < 0).sum(1).clamp(min=1) + EPSILON).sqrt()
    right = (above.square().sum(1) / (values >= 0).sum(1).clamp(min=1) + EPSILON).sqrt()
    ratio = left / right
    share = values.abs().mean(1).square() / (values.square().mean(1) + EPSILON)
    wanted = share * (ratio**3 + 1) * (ratio + 1) / (ratio.square() + 1).square()
    return Fit(_shape(wanted), left, right)


@functools.cache
def _table() -> tuple[Tensor, Tensor]:
    """Shapes, and ``gamma(2/a)^2 / (gamma(1/a) gamma(3/a))`` of each, which grows with the shape."""
    low, high, step = SHAPES
    shapes = torch.arange(low, high, step, dtype=torch.float64)
    shares = torch.exp(2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes))
    return shapes, shares


def _shape(wanted: Tensor) -> Tensor:
    """The shape ``[N]`` whose share of moments is `wanted`, linear between two entries of the table."""
    shapes, shares = (part.to(wanted.device) for part in _table())
    exact = wanted.double().clamp(shares[0], shares[-1])
    above = torch.searchsorted(shares, exact.detach()).clamp(1, len(shares) - 1)
    low, high = shares[above - 1], shares[above]
    share = (exact - low) / (high - low)
    return (shapes[above - 1] + share * (shapes[above] - shapes[above - 1])).to(wanted.dtype)


def halved(picture: Tensor) -> Tensor:
    """``[N, H, W]`` at half its size, bicubic and antialiased."""
    size = [max(1, side // 2) for side in picture.shape[-2:]]
    return functional.interpolate(picture[:, None], size, mode="bicubic", antialias=True)[:, 0]


def package_file(package: str, *parts: str) -> Path | None:
    """A file inside an installed package, which is not imported; None where there is no such package or file."""
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder, *parts)
        if path.is_file():
            return path
    return None
