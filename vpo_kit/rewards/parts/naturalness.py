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
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

WINDOW, SIGMA = 7, 7 / 6
"""Side and deviation of the Gaussian window of local mean and deviation."""
SATURATION = 1.0
"""What is added to the local deviation: in a flat place there is nothing to divide by."""
SHAPES = (0.2, 10.0, 0.001)
"""Range and step of the shape that is looked up; between two steps it is interpolated, which carries the gradient."""
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""The neighbours that are looked at: right, below, and the two diagonals."""
EPSILON = 1e-12
QUIET = 0.02
"""Detail, of 255, that counts as none."""
OVER = 1.25
"""The factor by which noise is taken for more than it is, so that nothing is gained by it where it is estimated too
low.
"""


@dataclass(frozen=True)
class Fit:
    """An asymmetric generalised Gaussian, each ``[N]``: `left` and `right` are its deviations below and above 0."""

    shape: Tensor
    left: Tensor
    right: Tensor

    @property
    def scale(self) -> Tensor:
        """The factor by which a deviation becomes the distribution's own width (beta)."""
        return torch.exp((torch.lgamma(1 / self.shape) - torch.lgamma(3 / self.shape)) / 2)

    @property
    def mean(self) -> Tensor:
        """The distribution's mean, ``(beta right - beta left) gamma(2 / shape) / gamma(1 / shape)``."""
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
    """The moment estimate of ``[N, n]``."""
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


def features(picture: Tensor) -> Tensor:
    """Luma ``[N, H, W]`` in 0 to 255 to BRISQUE's 36 statistics ``[N, 36]``, 18 at full size and 18 at half of it."""
    parts = []
    for scaled in (picture, halved(picture)):
        coefficients = mscn(scaled)
        whole = fit(coefficients.flatten(1))
        parts += [whole.shape, (whole.left.square() + whole.right.square()) / 2]
        for product in products(coefficients):
            of = fit(product.flatten(1))
            parts += [of.shape, of.mean, of.left.square(), of.right.square()]
    return torch.stack(parts, 1)


def grain(before: Tensor, picture: Tensor, after: Tensor) -> Tensor:
    """Deviation ``[N]`` of the noise that three neighbours ``[N, H, W]`` each have for themselves.

    From the lower quartile of how fine detail bends over them: most of a picture hardly moves, or holds no detail.
    """
    first, middle, last = (_fine(one[:, None]) for one in (before, picture, after))
    bend = (middle - (first + last) / 2).abs().flatten(1)
    # of white noise, 8 ninths of the variance is fine, bending over three frames makes it 3 halves
    return bend.kthvalue(bend.shape[1] // 4, 1).values / (0.3186 * math.sqrt(8 / 9 * 3 / 2))


def details(picture: Tensor, noise: Tensor | None = None) -> Tensor:
    """Luma ``[N, H, W]`` in 0 to 255 to ``[N, 16]``: how much detail there is at four sizes, and of which kind.

    Logarithms: the Laplacian's deviation at each size, and less that, its mean, its median, and its deviation where
    there is detail at a quarter of the size, that is at the edges of things. An edge weighs alike at all sizes, a soft
    one less at the small ones; noise weighs more there, and in between edges too; a mask weighs more at edges alone.

    What white noise of a known deviation ``[N]`` adds to the Laplacians is taken off, and `OVER` of it.
    """
    sizes = [picture[:, None]]
    for _ in range(3):
        sizes.append(functional.avg_pool2d(sizes[-1], 2))
    found = [_fine(one) for one in sizes]
    edges = found[2].square().detach()
    edges = edges / (edges.mean((1, 2, 3), keepdim=True) + QUIET)
    whole = torch.stack([_logged(one.square()) / 2 for one in found], 1)
    mean = torch.stack([_logged(one.abs()) for one in found], 1)
    median = torch.stack([(one.abs().flatten(1).median(1).values + QUIET).log() for one in found], 1)
    there = [functional.interpolate(edges, one.shape[-2:], mode="bilinear") for one in found]
    at_edges = torch.stack([_logged(one.square() * w) / 2 for one, w in zip(found, there, strict=True)], 1)
    rest = torch.cat([mean - whole, median - whole, at_edges - whole], 1)
    if noise is not None:
        own = torch.stack([OVER * noise.square() * 8 / 9 / 4**k for k in range(len(found))], 1)
        energy = torch.stack([one.square().mean((1, 2, 3)) for one in found], 1)
        whole = ((energy - own).clamp(min=0) + QUIET).log() / 2
    return torch.cat([whole, rest], 1)


def _fine(picture: Tensor) -> Tensor:
    """``[N, 1, H, W]`` less the mean of nine, edges repeated."""
    return picture - functional.avg_pool2d(functional.pad(picture, (1, 1, 1, 1), "replicate"), 3, 1)


def _logged(values: Tensor) -> Tensor:
    return (values.mean((1, 2, 3)) + QUIET).log()


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
