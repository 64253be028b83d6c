"""How a clip's feature maps change over time, frame by frame.

Legend: ``F`` frames, ``C`` channels, ``h w`` feature map, ``K`` statistics of a frame.

A clip that moves as the world moves changes smoothly: over twice the time a feature changes by up to twice as much, and
the change bends little. Noise, shaking and things drawn anew change at once and no further; a blend of frames bends
not at all; a repeated frame stands still and then bends sharply. So the logarithms of the changes over 1, 2 and 4
frames and of the bend, each over the other, tell of flaws in time, whatever is shown and however fast it moves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LAGS = (1, 2, 4)
FLOOR = 1e-3
"""Squared feature that counts as none."""
STILL = 30.0
"""A multiple of the floor: below it a change is said to be small, above it how large it is stays unsaid."""


def changes(maps: Tensor) -> Tensor:
    """``[F, C, h, w]``, F >= 2, to mean squares ``[F, 2 + len(LAGS), C]``: spatial deviation, changes, bend.

    A frame's change is the mean over its partners before and after. In short clips the longest lag is half the clip.
    """
    count = len(maps)
    spread = (maps - maps.mean((2, 3), keepdim=True)).square().mean((2, 3))
    found = [spread, *(_change(maps, max(1, min(lag, count // 2))) for lag in LAGS)]
    if count > 2:
        bend = (maps[1:-1] - (maps[:-2] + maps[2:]) / 2).square().mean((2, 3))
        found.append(torch.cat([bend[:1], bend, bend[-1:]]))
    else:
        found.append(found[1])
    return torch.stack(found, 1)


def _change(maps: Tensor, lag: int) -> Tensor:
    step = (maps[lag:] - maps[:-lag]).square().mean((2, 3))
    none = step.new_zeros(lag, step.shape[1])
    both = torch.cat([step, none]) + torch.cat([none, step])
    partners = torch.ones(len(maps), 1, device=maps.device)
    partners[lag : len(maps) - lag] = 2
    return both / partners


def ratios(found: Tensor) -> Tensor:
    """`changes` ``[..., 2 + len(LAGS), C]`` to ``[..., 4 C]``: how changes stand to each other, and if there are any.

    Of their size it is said only how far they are below that of a clip that hardly moves.
    """
    _, first, second, third, bend = ((found + FLOOR).log() / 2).unbind(-2)
    still = (first - math.log(STILL * FLOOR) / 2).clamp(max=0)
    return torch.cat([second - first, third - second, bend - first, still], -1)
