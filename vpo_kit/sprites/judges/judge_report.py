"""How good an embedded judge is, on clips from a corpus that it was not trained on.

A pair is right when the clean clip scores above its degraded copy; a window is right when the degraded frames
score below the others. All clips are softened, as by an autoencoder.
The attack figure is in units of the mean drop at severity 2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpo_kit.rewards import degrade
from vpo_kit.rewards.degrade.drawn import Drawn, Rng
from vpo_kit.rewards.frames import FrameScorer, pool
from vpo_kit.rewards.soften import Softness, soften
from vpo_kit.sprites import world
from vpo_kit.sprites.judges import corpus

Measured = dict[str, Any]
Flaws = Mapping[str, degrade.Degradation]
Attack = Callable[[FrameScorer, Tensor, int], Tensor]
HELD_OUT_SEED = 90_001


@dataclass(frozen=True)
class Exam:
    """What a judge is measured on: flaws, and `num_clips` clips of families that no judge was trained on."""

    flaws: Mapping[str, degrade.Degradation] = field(default_factory=lambda: degrade.DEGRADATIONS)
    families: Mapping[str, float] = field(default_factory=lambda: corpus.FAMILIES)
    num_clips: int = 60
    seed: int = HELD_OUT_SEED


def measure(judge: FrameScorer, attack: Attack, exam: Exam) -> Measured:
    """Calibrate the judge's `offset` and `unit`, then measure it; the judge is changed in place."""
    num_clips, seed = exam.num_clips, exam.seed
    clips = [corpus.clip(seed, i, families=exam.families) for i in range(num_clips)]
    sprites = [corpus.clip(seed + 1, i, family="sprite") for i in range(num_clips)]
    calibrate(judge, clips, seed, exam.flaws)
    return {
        "num_clips": num_clips,
        **pair_accuracy(judge, clips, seed, exam.flaws),
        "static_clone_rate": static_clone_rate(judge, clips, seed),
        "static_clone_rate_sprites": static_clone_rate(judge, sprites, seed),
        "world_flaws": world_accuracy(judge, num_clips, seed),
        **attack_figures(judge, clips[:16], seed, attack, exam.flaws),
    }


@torch.no_grad()
def calibrate(judge: FrameScorer, clips: list[Drawn], seed: int, flaws: Flaws) -> None:
    """Clean clips get mean 0, and the mean drop at severity 2 becomes 1."""
    judge.offset.zero_()
    judge.unit.fill_(1.0)
    found = []
    for i, clip in enumerate(clips):
        rng = np.random.default_rng([seed, 3, i])
        kinds = [str(k) for k in rng.choice(sorted(flaws), 6, replace=False)]
        window = _window(clip, rng)
        videos = [clip.video, *(flaws[k](clip, window, 2, rng) for k in kinds)]
        found.append(judge(_softened(clip, videos, rng)))
    frames = torch.stack(found)  # [clips, 1 + 6, F]
    for _ in range(30):  # the pool leans more to the worst frame the larger the scores, so no single division does
        scores = pool(frames / judge.unit)
        judge.unit.mul_((scores[:, :1] - scores[:, 1:]).mean().clamp(0.1, 10.0))
    judge.offset.copy_(pool(frames[:, 0] / judge.unit).mean() * judge.unit)


@torch.no_grad()
def pair_accuracy(judge: FrameScorer, clips: list[Drawn], seed: int, flaws: Flaws) -> Measured:
    """The accuracy by kind: share of right pairs at each severity, and on sprites; of right windows; mean drops."""
    pairs: dict[str, list[list[float]]] = defaultdict(list)
    sprites: dict[str, list[float]] = defaultdict(list)
    windows: dict[str, list[float]] = defaultdict(list)
    drops: dict[str, list[list[float]]] = defaultdict(list)
    clean = []
    for i, clip in enumerate(clips):
        for k, (kind, spoil) in enumerate(flaws.items()):
            rng = np.random.default_rng([seed, 4, i, k])
            start, end = _window(clip, rng)
            chain = int(rng.integers(2**31))
            spoilt = [spoil(clip, (start, end), s, np.random.default_rng(chain)) for s in degrade.SEVERITIES]
            frames = judge(_softened(clip, [clip.video, *spoilt], rng))
            scores = pool(frames)
            right = (scores[0] > scores[1:]).float().tolist()
            pairs[kind].append(right)
            drops[kind].append((scores[0] - scores[1:]).tolist())
            if clip.family == "sprite":
                sprites[kind].extend(right)
            if kind not in degrade.WHOLE:
                inside = torch.zeros(clip.num_frames, dtype=torch.bool)
                inside[start:end] = True
                windows[kind].extend((frames[1:, inside].mean(1) < frames[1:, ~inside].mean(1)).float().tolist())
        clean.append(float(scores[0]))
    return {
        "pairs": _mean(x for rows in pairs.values() for row in rows for x in row),
        "windows": _mean(x for row in windows.values() for x in row),
        "pairs_sprites": _mean(x for row in sprites.values() for x in row),
        "clean_spread": round(float(np.std(clean)), 3),
        "by_kind": {
            kind: {
                "pairs": [_mean(row[s] for row in rows) for s in range(5)],
                "sprites": _mean(sprites[kind]),
                "windows": _mean(windows[kind]),
                "drops": [_mean(row[s] for row in drops[kind]) for s in range(5)],
            }
            for kind, rows in pairs.items()
        },
    }


@torch.no_grad()
def static_clone_rate(judge: FrameScorer, clips: list[Drawn], seed: int) -> float | None:
    """Share of moving clips whose copy, frozen at one frame, scores as high or higher."""
    wins = []
    for i, clip in enumerate(clips):
        rng = np.random.default_rng([seed, 5, i])
        moving = _softened(clip, [clip.video], rng)[0]
        frozen = moving[int(rng.integers(len(moving)))].expand_as(moving)
        scores = pool(judge(torch.stack([moving, frozen])))
        wins.append(float(scores[1] >= scores[0]))
    return _mean(wins)


@torch.no_grad()
def world_accuracy(judge: FrameScorer, num_pairs: int, seed: int) -> Measured:
    """Pair accuracy on the sprite world's own flaws, which are not the training degradations, by kind."""
    found = {}
    pool_of_scenes = world.scenes(held_out=False) + world.scenes(held_out=True)
    for k, kind in enumerate(world.FLAWS):
        right = []
        for i in range(num_pairs):
            rng = np.random.default_rng([seed, 6, k, i])
            scene = pool_of_scenes[int(rng.integers(len(pool_of_scenes)))]
            length, draw = int(rng.integers(4, 10)), int(rng.integers(2**31))
            start = int(rng.integers(1, world.NUM_FRAMES - length + 1))
            flaw = world.Flaw(kind, start, start + length, float(rng.random()))
            videos = [world.render(scene, np.random.default_rng(draw), flaws).video for flaws in ((), (flaw,))]
            softness = Softness.draw(rng, 1.0)
            soft = [soften(torch.from_numpy(v), softness, rng) for v in videos]
            scores = pool(judge(torch.stack(soft)))
            right.append(float(scores[0] > scores[1]))
        found[kind] = _mean(right)
    return found


def attack_figures(judge: FrameScorer, clips: list[Drawn], seed: int, attack: Attack, flaws: Flaws) -> Measured:
    """20 sign-gradient steps within 2/255: the mean rise of a score, in the unit, and the share of clips
    degraded at severity 2 that come to score above their clean original.
    """
    pairs = []
    for i, clip in enumerate(clips):
        rng = np.random.default_rng([seed, 7, i])
        kind = sorted(flaws)[int(rng.integers(len(flaws)))]
        spoilt = flaws[kind](clip, _window(clip, rng), 2, rng)
        pairs.append(_softened(clip, [clip.video, spoilt], rng))
    video = torch.stack(pairs)
    raised = attack(judge, video.flatten(0, 1), 20).view_as(video)
    with torch.no_grad():
        before, after = (pool(judge(v.flatten(0, 1))).view(-1, 2) for v in (video, raised))
    overtaken = (after[:, 1] > before[:, 0]) & (before[:, 1] < before[:, 0])
    return {
        "attack_rise": round(float((after - before).mean()), 3),
        "attack_overtakes": _mean(overtaken.float().tolist()),
    }


def _window(clip: Drawn, rng: Rng) -> degrade.Window:
    length = int(rng.integers(4, 10))
    start = int(rng.integers(1, clip.num_frames - length + 1))
    return start, start + length


def _softened(clip: Drawn, videos: list[Tensor], rng: Rng) -> Tensor:
    softness = Softness.draw(rng, 1.0 if clip.family == "sprite" else 0.4)
    return torch.stack([soften(video, softness, rng) for video in videos])


def _mean(values: Any) -> float | None:
    found = list(values)
    return round(float(np.mean(found)), 3) if found else None
