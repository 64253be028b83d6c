"""What judges learn from and what they say, in a few figures.

The weights of `vqa`, `gold` and `gold2` were fitted to these flaws and pictures: who changes one of them changes what
the shipped judges were trained on, and has to train and measure them again. And who changes what a shipped judge or a
closed form says of a video makes every committed result one of another judge.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vpo_kit.evaluation.temporal import MotionAmount, Temporal
from vpo_kit.registry import REWARDS
from vpo_kit.rewards import canvases, degrade
from vpo_kit.rewards.base import Reward
from vpo_kit.rewards.degrade.drawn import Drawn
from vpo_kit.rewards.soften import Softness, soften
from vpo_kit.sprites.judges import corpus

WINDOW = (4, 9)


def of_material() -> dict[str, list[float]]:
    """Five figures of each flaw, one for each severity with draws of its own, and of each maker of pictures."""
    clips = [corpus.clip(3, i) for i in range(5)]
    found = {
        name: [_figure(_spoilt(spoil, clips[5 - severity], severity)) for severity in degrade.SEVERITIES]
        for name, spoil in (degrade.DEGRADATIONS | degrade.UNTAUGHT).items()
    }
    found["a clip"] = [_figure(clip.video) for clip in clips]
    for make in (canvases.cells, canvases.strokes):
        found[make.__name__] = [_figure(make(3, i, 48)) for i in range(5)]
    found["soften"] = [_figure(_soft(clip, i)) for i, clip in enumerate(clips)]
    return found


def of_judges() -> dict[str, list[float]]:
    """What each judge that ships, and each closed form, says of a clip and of a damaged one: of the whole, of segments
    and in parts; and how far a change of the video changes it.
    """
    videos = {"small": _small(), "long": _long()}
    found = {}
    for name in REWARDS.targets():
        kind = REWARDS.load(name)
        for size, video in videos.items() if kind.spec.self_contained and not kind.spec.needs_prompt else ():
            found[f"{name}, {size}"] = _judged(kind(), video, slopes=size == "small")
    for size, video in videos.items():
        said = Temporal()(video, ["a", "b"], 8.0) | MotionAmount()(video, ["a", "b"], 8.0)
        found |= {f"{name}, {size}": [round(one, 5) for one in values] for name, values in said.items()}
    return found


def _small() -> Tensor:
    clips = [corpus.clip(3, i) for i in (0, 1)]
    return torch.stack([clips[0].video, _spoilt(degrade.DEGRADATIONS["jitter"], clips[1], 4)])


def _long() -> Tensor:
    """Forty frames of 96 x 128, two pictures that a camera passes over; in the second the light changes."""
    rows = []
    for make in (canvases.cells, canvases.strokes):
        picture = make(3, 0, 192)
        rows.append(torch.stack([picture[:, i : i + 96, 2 * i // 3 : 2 * i // 3 + 128] for i in range(40)]))
    light = 0.8 + 0.2 * torch.cos(torch.arange(40) / 3.0)
    return torch.stack([rows[0], rows[1] * light[:, None, None, None]])


def _judged(judge: Reward, video: Tensor, *, slopes: bool) -> list[float]:
    slopes = slopes and judge.spec.differentiable
    segments = [(0, 3), (3, 10), (10, video.shape[1])]
    changing = video.clone().requires_grad_(slopes)
    said = judge(changing, ["a red ball", "a blue box"], fps=8.0, segments=segments if judge.spec.per_segment else None)
    parts = [said.score, *said.components.values(), *([] if said.segments is None else [said.segments])]
    if slopes:
        parts.append(torch.autograd.grad(said.score.sum(), changing)[0].norm())
    return [round(float(value), 5) for part in parts for value in part.detach().flatten()]


def _spoilt(spoil: degrade.Degradation, clip: Drawn, severity: int) -> Tensor:
    return spoil(clip, WINDOW, severity, np.random.default_rng(severity))


def _soft(clip: Drawn, i: int) -> Tensor:
    rng = np.random.default_rng(i)
    return soften(clip.video, Softness.draw(rng, 0.9), rng)


def _figure(video: Tensor) -> float:
    """The video seen through a fixed noise: no two videos that differ in more than rounding give the same."""
    noise = torch.randn(video.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return round(float((video.double() * noise).sum()), 3)
