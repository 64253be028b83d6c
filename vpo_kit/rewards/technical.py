"""Technical quality in closed form: five measures of each frame, each with a band in which it costs nothing.

Legend: ``B`` videos, ``F`` frames, ``P = F - 1`` pairs of neighbours. Video is float ``[B, F, 3, H, W]`` in [0, 1]; H and
W from 32. Nothing is learned, everything but the flow is differentiable.

A band and not a direction, because each measure has an easy extreme: the smoothest video is a frozen one, the least
noisy a blurred one. Inside all bands the score is 0 and the gradient too.

| measure | what it is | clean clips, 2 to 98% of frames | leaves the band |
|---|---|---|---|
| softness | share of the squared gradient that a blur of 1 pixel leaves, where there is detail | .17 to .43 | blur, above |
| blocking | share of the gradient on a grid of 4 or 8 pixels less that on the next strongest phase, over 9 frames | -.35 to .12 | blocks, above |
| flicker | mean size of the smooth part of the change that motion does not explain, in [0, 1] | 0 to .009 | flicker, grain, above |
| noise | deviation of the fine part of it where the picture is flat, in [0, 1] | 0 to .008, fine textures .024 | noise, above |
| motion | pixels a frame along the gradients, shorter side at most 128, of the change that motion explains | .09 to 1.9 | stills, below |

A Gaussian edge of width s has a softness of about s / sqrt(1 + s^2), so a band ends at a width in pixels: .55 is 0.66.
Not seen: shaking, morphing, wrong order, things that come and go. They are motion to an optical flow.
"""  # noqa: E501

from __future__ import annotations

from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import AfterValidator
from torch import Tensor
from torch.nn import functional

from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, RewardSpec, Segments
from vpo_kit.rewards.flow import gaussian, gradient, local_mean, lucas_kanade, resized, warp
from vpo_kit.video import straight_through_clamp

SPATIAL, TEMPORAL = ("softness", "blocking"), ("flicker", "noise", "motion")
UNITS = {"softness": 0.15, "blocking": 0.2, "flicker": 0.02, "noise": 0.02, "motion": 0.025}
"""How far outside its band a measure costs 1: about a plainly visible flaw, and a still picture costs 4."""
WORKING_SIZE = 128
"""The largest shorter side of the pictures on which motion and flicker are measured: coarse things, and quicker."""
GRIDS, BLOCK_FRAMES = (4, 8), 9
FLAT = 1e-3
"""Squared gradient, over three channels, at which a place counts as half flat and half detail."""
EPSILON = 1e-6


def _ordered(band: tuple[float, float]) -> tuple[float, float]:
    if not band[0] < band[1]:
        raise ValueError("write [low, high] with low below high")
    return band


Band = Annotated[tuple[float, float], AfterValidator(_ordered)]


class TechnicalConfig(RewardConfig):
    """The bands, [low, high]; the defaults hold most frames of clean procedural clips of 64 pixels.

    Footage and larger models are softer: score good clips of your own and set the bands from `components`.
    """

    softness: Band = (0.08, 0.55)
    """Share of the gradient that a blur leaves, where there is detail."""
    blocking: Band = (-1.0, 0.05)
    """Share of the gradient that lies on a codec's grid, less that beside it."""
    flicker: Band = (0.0, 0.005)
    """Smooth change between frames that motion does not explain."""
    noise: Band = (0.0, 0.01)
    """Fine change between frames where the picture is flat."""
    motion: Band = (0.1, 1000.0)
    """Motion in pixels a frame, the shorter side at most 128."""


class Technical(Reward):
    """`components` are the measures themselves, each the mean over the frames, ``[B]``."""

    Config = TechnicalConfig
    spec: ClassVar[RewardSpec] = RewardSpec(
        name="technical",
        licence="Apache-2.0",
        source="closed form, no weights",
        scale="at most 0, the best: minus the mean distance outside five bands; a plain flaw costs about 1",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
        self_contained=True,
        mean=-1.0,  # 48 sprite training clips (world.training_clips(48, 0)), 21 of them flawed: -1.05 and 1.56
        std=1.6,
    )

    def forward(
        self, video: Tensor, prompts: Any = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        found = torch.stack([measure(one) for one in straight_through_clamp(video.float())])
        names = (SPATIAL + TEMPORAL)[: found.shape[-1]]
        settings = cast(TechnicalConfig, self.config)
        bands = found.new_tensor([getattr(settings, name) for name in names])
        outside = functional.relu(bands[:, 0] - found) + functional.relu(found - bands[:, 1])
        frames = -(outside / found.new_tensor([UNITS[name] for name in names])).sum(-1)
        parts = None if segments is None else torch.stack([frames[:, a:b].mean(1) for a, b in segments], 1)
        means = dict(zip(names, found.mean(1).unbind(-1), strict=True))
        return RewardOutput(frames.mean(1), parts, means)


def measure(video: Tensor) -> Tensor:
    """``[F, 3, H, W]`` to ``[F, 5]``, in the order of `SPATIAL` and `TEMPORAL`; a single frame has the first two only.

    What belongs to a pair of frames is shared by both.
    """
    detail = detail_of(video)
    spatial = torch.stack([softness(video, detail), blocking(video, detail)], 1)
    if len(video) < 2:
        return spatial
    pairs = _temporal(video, 1 - detail)
    return torch.cat([spatial, (torch.cat([pairs[:1], pairs]) + torch.cat([pairs, pairs[-1:]])) / 2], 1)


@torch.no_grad()
def detail_of(video: Tensor) -> Tensor:
    """``[F, 1, H, W]`` in [0, 1]: where there is something to see. A weight, without gradient.

    Sharpness and blocks are looked for there, and noise where there is nothing: a grain too fine to be seen would
    otherwise make a blurred sky sharp.
    """
    across, down = gradient(gaussian(video, 1.0))
    strength = (across.square() + down.square()).sum(1, keepdim=True)
    return strength / (strength + FLAT)


def softness(video: Tensor, detail: Tensor) -> Tensor:
    """``[F]`` in (0, 1]. Height and number of edges cancel, so it hardly depends on what is shown."""
    blurred = gaussian(video, 1.0)
    energy, left = video.new_zeros(len(video)), video.new_zeros(len(video))
    for axis in (-1, -2):
        weight = _between(detail, axis)
        energy = energy + (video.diff(dim=axis).square() * weight).mean((1, 2, 3))
        left = left + (blurred.diff(dim=axis).square() * weight).mean((1, 2, 3))
    return (left + EPSILON) / (energy + EPSILON)


def blocking(video: Tensor, detail: Tensor) -> Tensor:
    """``[F]`` from -1 to 1. Over some frames, because an object's edges cross the grid and blocks stay on it."""
    steps = [
        (picture.diff(dim=-1).abs() * _between(weight, -1)).mean((1, 2))  # the first lies between pixels 0 and 1
        for picture, weight in ((video, detail), (video.mT, detail.mT))
    ]
    return torch.maximum(*(_on_grid(steps, size) for size in GRIDS))


def _on_grid(steps: list[Tensor], size: int) -> Tensor:
    phases = steps[0].new_zeros(len(steps[0]), size)
    for step in steps:
        padded = functional.pad(step, (1, -(step.shape[1] + 1) % size))
        phases = phases + padded.view(len(step), -1, size).sum(1)
    phases = _smoothed(phases, BLOCK_FRAMES)
    share = phases / (phases.sum(1, keepdim=True) + EPSILON)
    return share[:, 0] - share[:, 1:].amax(1)


def _between(weight: Tensor, axis: int) -> Tensor:
    """A weight of pixels as a weight of the steps between neighbours along `axis`."""
    size = weight.shape[axis] - 1
    return (weight.narrow(axis, 0, size) + weight.narrow(axis, 1, size)) / 2


def _temporal(video: Tensor, flat: Tensor) -> Tensor:
    """Flicker, noise and motion, ``[P, 3]``: the change between frames, split by what motion explains of it."""
    small = _working(video)
    flow = lucas_kanade(small[:-1], small[1:])
    left = warp(small[1:], flow) - small[:-1]
    flicker = gaussian(left, 2.0).abs().mean((1, 2, 3))
    if small.shape != video.shape:
        left = warp(video[1:], resized(flow, video.shape[-2], video.shape[-1])) - video[:-1]
    return torch.stack([flicker, _noise(left, flat[:-1]), _motion(small, flow)], 1)


def _noise(left: Tensor, flat: Tensor) -> Tensor:
    """``[P]``: deviation of the fine part of what motion leaves, where the pictures are flat."""
    fine = left - local_mean(left, 3)
    variance = (fine.square() * flat).mean((1, 2, 3)) / (flat.mean((1, 2, 3)) + EPSILON)
    # the difference of two frames has twice the variance of one, and less its local mean keeps 8 ninths of it
    return (variance * 9 / 16 + EPSILON**2).sqrt()


def _motion(video: Tensor, flow: Tensor) -> Tensor:
    """``[P]``: the change that motion explains over the gradient, a speed that is differentiable where flow is not."""
    smooth = gaussian(video, 1.0)
    change = smooth.diff(dim=0).square().mean((1, 2, 3))
    explained = functional.relu(change - (warp(smooth[1:], flow) - smooth[:-1]).square().mean((1, 2, 3)))
    across, down = gradient(smooth)
    detail = (across.square() + down.square()).mean((1, 2, 3))
    return (2 * explained / (detail[1:] + detail[:-1] + EPSILON) + EPSILON).sqrt()


def _working(video: Tensor) -> Tensor:
    """The video with its shorter side brought down to `WORKING_SIZE`; smaller ones stay as they are."""
    scale = WORKING_SIZE / min(video.shape[-2:])
    if scale >= 1:
        return video
    size = [round(side * scale) for side in video.shape[-2:]]
    return functional.interpolate(video, size, mode="bilinear", antialias=True)


def _smoothed(values: Tensor, length: int) -> Tensor:
    """``[F, n]``: the mean over an odd `length` of frames, over those that there are."""
    return functional.avg_pool1d(values.T[None], length, 1, length // 2, count_include_pad=False)[0].T
