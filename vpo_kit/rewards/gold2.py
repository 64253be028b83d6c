"""A second held-out judge for the embedded world: nothing but the task in common with `vqa` and `gold`.

Legend: ``B`` videos, ``F`` frames, ``K`` energies of a frame. No filter is learned: a frame is told by how much its
edges, its changes and the bends of its changes weigh in three opponent colours at three sizes, on the whole and where
they weigh most; a recurrent network reads that over time, in both directions. Trained on mosaics, strokes and sprites
with the flaws of `degrade.UNTAUGHT`, which the other two were not taught. It may not be trained on.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vpo_kit.rewards.base import RewardSpec
from vpo_kit.rewards.frames import FrameScorer, FramesReward, shifted

LEVELS, CELLS = 3, 4
"""Halvings of the picture, and cells a side of which the heaviest counts."""
ENTER, STATE = 64, 40
FLOOR = 1e-6
"""Energy that counts as none: a thousandth of the range of values, squared."""
MAPS = 7


class FilterJudge(FrameScorer):
    """Energies of fixed filters, then a recurrent network over time."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(LEVELS * MAPS * 3 * 2, ENTER)
        self.along = nn.GRU(ENTER, STATE, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * STATE)
        self.context = nn.Linear(3 * 2 * STATE, 48)
        self.head = nn.Linear(48, 1)

    def raw(self, video: Tensor) -> Tensor:
        return self.judged(energies(video))

    def judged(self, found: Tensor) -> Tensor:
        """`energies` ``[B, F, K]`` to scores ``[B, F]``."""
        found = functional.silu(self.enter(found))
        # in float32 also under autocast: torch's recurrent layers on CPUs know no other precision with gradient
        with torch.autocast(found.device.type, enabled=False):
            state = self.norm(self.along(found.float())[0])
            whole = [part.unsqueeze(1).expand_as(state) for part in (state.mean(1), state.amax(1))]
            return cast(Tensor, self.head(functional.silu(self.context(torch.cat([state, *whole], -1)))).squeeze(-1))


def energies(video: Tensor) -> Tensor:
    """``[B, F, 3, H, W]`` to logarithms ``[B, F, K]``, about -3 to 3."""
    red, green, blue = video.unbind(2)
    x = torch.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue], 2)
    found = []
    for level in range(LEVELS):
        if level:
            small = functional.avg_pool2d(x.flatten(0, 1), 2)
            x = small.view(*x.shape[:2], *small.shape[1:])
        found += [_weighed(part) for part in _maps(x)]
    return (torch.cat(found, 2) + FLOOR).log() / 2 + 3


def _maps(x: Tensor) -> list[Tensor]:
    """Videos ``[B, F, 3, h, w]``: edges across and down, spots, the change, its spots, its bend, a longer change."""
    change = x.diff(dim=1)
    change = torch.cat([change[:, :1], change], 1)  # not zero, which would look like a frozen first frame
    bend = x - 0.5 * (shifted(x, -1) + shifted(x, 1))
    if x.shape[1] > 2:
        bend = torch.cat([bend[:, 1:2], bend[:, 1:-1], bend[:, -2:-1]], 1)
    across, down = _edges(x)
    return [across, down, _spots(x), change, _spots(change), bend, (shifted(x, 2) - shifted(x, -2)) / 2]


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return functional.pad(x.diff(dim=-1), (0, 1)), functional.pad(x.diff(dim=-2), (0, 0, 0, 1))


def _spots(x: Tensor) -> Tensor:
    """The picture less the mean of the four neighbours, edges repeated."""
    flat = functional.pad(x.flatten(0, 1), (1, 1, 1, 1), mode="replicate")
    around = flat[..., :-2, 1:-1] + flat[..., 2:, 1:-1] + flat[..., 1:-1, :-2] + flat[..., 1:-1, 2:]
    return x - around.view_as(x) / 4


def _weighed(part: Tensor) -> Tensor:
    """Mean energy ``[B, F, 3]`` and that of the heaviest cell, side by side."""
    local = functional.adaptive_avg_pool2d(part.square().flatten(0, 1), CELLS).view(*part.shape[:3], CELLS, CELLS)
    return torch.cat([local.mean((3, 4)), local.amax((3, 4))], 2)


class Gold2(FramesReward):
    """The second judge that training never sees."""

    spec: ClassVar[RewardSpec] = RewardSpec(
        name="gold2",
        licence="Apache-2.0",
        source="trained by this project on procedural clips (gold2.safetensors)",
        scale="about -4 to 0.5: clean clips near 0, a slight flaw in a window costs 1",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
        self_contained=True,
        embedded_only=True,
        for_training=False,
    )
    shipped = "gold2.safetensors"

    @staticmethod
    def build() -> FilterJudge:
        return FilterJudge()
