"""Metrics in closed form: flicker, what motion does not explain, how much moves, how smoothly, and how sharp it is.

Legend: ``F`` frames, ``P`` pairs of frames. A clip is float ``[F, 3, H, W]`` in [0, 1]; flow is measured with Lucas and
Kanade (`rewards.flow`) on pictures with a shorter side of at most `WORKING_SIZE`.

VBench's own numbers come from learned networks (RAFT for flow, AMT for frames in between): what is called after VBench
here has its definition, and these numbers are not to be set beside published ones.

A frozen clip is the best of all by flicker, warp error and smoothness. They say nothing without `dynamic_degree`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from vpo_kit.measures import Metric
from vpo_kit.rewards.flow import lucas_kanade, warp
from vpo_kit.rewards.technical import detail_of, softness
from vpo_kit.video import motion

WORKING_SIZE = 256
"""The largest shorter side of the pictures whose flow is found; VBench states its limit on it."""
RATE, LIMIT, FASTEST = 8.0, 6.0, 0.05
"""VBench's dynamic degree: frames a second that are looked at, pixels a pair on a side of 256, share of the picture."""
CHUNK = 16
"""Pairs whose flow is found at once."""


class MotionAmount:
    """How much a clip moves, in one number that is always measured."""

    metrics: ClassVar[Sequence[Metric]] = (
        Metric(
            name="motion",
            group="motion",
            direction="neutral",
            unit="0 to 1",
            about="mean change between frames, median over time",
        ),
    )

    def __call__(self, video: Tensor, prompts: Sequence[str], fps: float) -> dict[str, list[float]]:
        return {"motion": motion(video).tolist()}


class Temporal:
    """The closed forms of this file."""

    metrics: ClassVar[Sequence[Metric]] = (
        Metric(
            name="flow_speed",
            group="motion",
            direction="neutral",
            unit="px",
            about="fastest 5% of the picture, 1/8 s, side 256 px",
            needs=("fps",),
        ),
        Metric(
            name="dynamic_degree",
            group="motion",
            direction="neutral",
            unit="share",
            about="clips that move, by VBench's rule",
            needs=("fps",),
        ),
        Metric(
            name="flicker",
            group="over time",
            direction="higher",
            unit="0 to 1",
            about="1 less the mean change between frames (VBench)",
        ),
        Metric(
            name="warp_error",
            group="over time",
            direction="lower",
            unit="of 255",
            about="mean change between frames that motion leaves",
        ),
        Metric(
            name="smoothness",
            group="over time",
            direction="higher",
            unit="0 to 1",
            about="1 less the error of frames guessed from neighbours",
        ),
        Metric(
            name="sharpness",
            group="pictures",
            direction="higher",
            unit="0 to 1",
            about="share of the gradient that a small blur takes away",
        ),
    )

    def __call__(self, video: Tensor, prompts: Sequence[str], fps: float) -> dict[str, list[float]]:
        return closed_forms(video, fps)


@torch.no_grad()
def closed_forms(video: Tensor, fps: float) -> dict[str, list[float]]:
    """All metrics of this file for clips ``[B, F, 3, H, W]``; those over time need two frames, smoothness three."""
    rows = [_of_clip(clip.float(), fps) for clip in video]
    return {key: [row[key] for row in rows] for key in rows[0]}


def _of_clip(clip: Tensor, fps: float) -> dict[str, float]:
    found = {"sharpness": float(1 - softness(clip, detail_of(clip)).mean())}
    if len(clip) < 2 or min(clip.shape[-2:]) < 16:
        return found
    small = working(clip)
    flow = flow_between(small[:-1], small[1:])
    step = max(1, round(fps / RATE))
    seen = small[::step]
    speeds = fastest(flow if step == 1 else flow_between(seen[:-1], seen[1:]))
    found |= {
        "flow_speed": float(speeds.mean()) if len(speeds) else 0.0,
        "dynamic_degree": float(is_dynamic(speeds, len(seen))),
        "flicker": float(flicker(clip)),
        "warp_error": float(warp_error(small, flow)),
    }
    return found | ({"smoothness": float(smoothness(small))} if len(clip) > 2 else {})


def flicker(clip: Tensor) -> Tensor:
    """VBench's temporal flickering: ``(255 - mean |I_t - I_{t+1}|) / 255``; 1 for a frozen clip, less with motion."""
    return 1 - clip.diff(dim=0).abs().mean()


def warp_error(clip: Tensor, flow: Tensor) -> Tensor:
    """Mean ``|warp(I_{t+1}) - I_t|`` over what stays in the picture, in grey levels of 255.

    After Lai et al., "Learning Blind Video Temporal Consistency" (2018), with the absolute difference, and without
    their mask of hidden places: the test of flow against backward flow that makes it also hides most of a noisy or
    blurred part, and on clean clips quick motion costs no more than slow motion without it.
    """
    kept = inside(flow)[:, None]
    left = (warp(clip[1:], flow) - clip[:-1]).abs().mean(1, keepdim=True)
    return 255 * (left * kept).sum() / kept.sum().clamp_min(1)


def fastest(flow: Tensor) -> Tensor:
    """``[P, 2, h, w]`` to ``[P]``: mean length of the longest 5%, in pixels of a picture whose shorter side is 256.

    Where the flow leads out of the picture nothing can be matched, and Lucas and Kanade guess: such places are left
    out, which VBench's network has no need of.
    """
    lengths, kept = flow.square().sum(1).sqrt(), inside(flow) > 0
    top = [
        one[keep].topk(max(1, int(FASTEST * int(keep.sum())))).values.mean() if keep.any() else one.new_zeros(())
        for one, keep in zip(lengths, kept, strict=True)
    ]
    return (torch.stack(top) if top else lengths.new_zeros(0)) * (WORKING_SIZE / min(flow.shape[-2:]))


def is_dynamic(speeds: Tensor, frames: int) -> bool:
    """VBench's rule: of `frames` frames, a quarter or more (rounded, at least one) move on by more than `LIMIT`."""
    return int((speeds > LIMIT).sum()) >= max(1, round(4 * frames / 16))


def smoothness(clip: Tensor) -> Tensor:
    """VBench's motion smoothness: every second frame guessed from its neighbours, ``1 - mean |guess - I_t|``.

    The guess is both neighbours moved half of the way along the flow from one to the other, and averaged.
    """
    count = (len(clip) - 1) // 2
    first, middle, last = clip[: 2 * count : 2], clip[1 : 2 * count : 2], clip[2 : 2 * count + 1 : 2]
    half = flow_between(first, last) / 2
    guess = (warp(first, -half) + warp(last, half)) / 2
    return 1 - (guess - middle).abs().mean()


def flow_between(first: Tensor, second: Tensor) -> Tensor:
    """`lucas_kanade` in parts that fit the memory, ``[P, 2, h, w]``."""
    if not len(first):
        return first.new_zeros(0, 2, *first.shape[-2:])
    parts = zip(torch.split(first, CHUNK), torch.split(second, CHUNK), strict=True)
    return torch.cat([lucas_kanade(a, b) for a, b in parts])


def inside(flow: Tensor) -> Tensor:
    """A mask ``[P, h, w]``, 1 where the flow stays in the picture."""
    height, width = flow.shape[-2:]
    across = torch.arange(width, device=flow.device) + flow[:, 0]
    down = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    near = 1e-3  # a still picture's flow is not exactly zero
    kept = (across >= -near) & (across <= width - 1 + near) & (down >= -near) & (down <= height - 1 + near)
    return kept.float()


def working(clip: Tensor) -> Tensor:
    """The clip with its shorter side brought down to `WORKING_SIZE`; smaller ones stay as they are."""
    scale = WORKING_SIZE / min(clip.shape[-2:])
    if scale >= 1:
        return clip
    size = [round(side * scale) for side in clip.shape[-2:]]
    return functional.interpolate(clip, size, mode="bilinear", antialias=True)
