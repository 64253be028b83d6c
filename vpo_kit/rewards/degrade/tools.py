"""What degradations are made of; shapes as in the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vpo_kit.rewards.degrade.drawn import Array, Drawn, Rng

Window = tuple[int, int]


def amount(severity: int, *levels: float) -> float:
    """The level of a severity from 1 to 5."""
    return levels[severity - 1]


def inside(clip: Drawn, window: Window, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The clip with the frames of the window changed, in [0, 1]."""
    start, end = window
    video = clip.video.clone()
    video[start:end] = change(video[start:end]).clamp(0, 1)
    return video


def times(clip: Drawn) -> Array:
    """Every frame's time, in frames."""
    return np.arange(clip.num_frames, dtype=np.float64)


def opacity(clip: Drawn, window: Window, inside: NDArray[Any]) -> Tensor:
    """The clip with its main object as opaque as `inside` says, frame by frame of the window."""
    opacity = np.ones(clip.num_frames)
    opacity[window[0] : window[1]] = inside
    return clip.redraw(times(clip), opacity=opacity)


def normal(rng: Rng, *shape: int) -> Tensor:
    """Standard normal draws."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def warp(video: Tensor, move: Tensor) -> Tensor:
    """``[F, 3, H, W]`` looked up at displacements ``[F, H, W, 2]`` (x, y) in pixels, edges repeated."""
    frames, _, height, width = video.shape
    same = torch.eye(2, 3).expand(frames, -1, -1)
    grid = functional.affine_grid(same, [frames, 3, height, width], align_corners=False)
    grid = grid + move * torch.tensor([2 / width, 2 / height])
    return functional.grid_sample(video, grid, padding_mode="border", align_corners=False)
