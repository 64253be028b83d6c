"""Figures about pairs, for the docs: ``python -m benchmarks.pairs alignment|labeller``.

`alignment` compares how far the two members of guided and of independent pairs are apart, by their sprites' paths.
`labeller` judges clips with known flawed windows, segment by segment and as a whole, against the truth.
Results go to ``benchmarks/results/pairs_*.json``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import facts
from vpo_kit import models
from vpo_kit.labelling import by_reward, by_scores
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.pairing.guided import GuidedMaker
from vpo_kit.pairing.independent import IndependentMaker
from vpo_kit.pairing.job import Task
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.segments import cut, default_seconds, vote
from vpo_kit.pairing.settings import Labelling, PairSettings
from vpo_kit.rewards.base import Mixture
from vpo_kit.rewards.vqa import VQA, GoldVQA
from vpo_kit.sampler import derive_seed
from vpo_kit.sprites import tracker, world
from vpo_kit.testing.pairs import pair_row


class Rendered:
    """A clip of the world that stands for a file: `GuidedMaker` reads it as it would a video."""

    def __init__(self, clip: world.WorldClip, name: str) -> None:
        self.prompt = clip.caption
        self.name = name
        self._video = torch.from_numpy(clip.video)

    def read(self) -> Tensor:
        return self._video


def alignment(count: int = 48) -> dict[str, Any]:
    """Mean distance of the centroids of both members, frame by frame, in pixels."""
    model = models.load("sprites")
    clips = [Rendered(clip, str(i)) for i, clip in enumerate(world.training_clips(count, seed=11))]
    found: dict[str, Any] = {"count": count, "clips_seed": 11}
    for low, high in ((0.65, 0.8), (0.004, 0.004), (0.95, 1.0)):
        settings = PairSettings.model_validate({"guided": {"eta_min": low, "eta_max": high}})
        maker = GuidedMaker(_task(model, settings), clips)  # type: ignore[arg-type]
        pairs = [m for batch in maker.job().batches for _, outcome in maker.make(batch) for m in outcome]
        sources = {clip.name: clip.read() for clip in clips}
        found[f"guided {low} to {high}"] = {
            "members apart, px": _mean([_apart(m.first, m.second) for m in pairs]),
            "first from its source, px": _mean([_apart(m.first, sources[m.source]) for m in pairs]),
        }
    loose = IndependentMaker(_task(model, PairSettings()), [clip.prompt for clip in clips], None)
    pairs = [m for batch in loose.job().batches for _, outcome in loose.make(batch) for m in outcome]
    found["independent"] = {"members apart, px": _mean([_apart(m.first, m.second) for m in pairs])}
    return found


def labeller(count: int = 160) -> dict[str, Any]:
    """Two renderings of one scene, each with its own flaws or none; the truth of a segment is which one is flawed."""
    model = models.load("sprites")
    found: dict[str, Any] = {"count": count, "margin": "calibrated, a quarter ties"}
    for name, reward in (("vqa", VQA()), ("gold", GoldVQA())):
        scorer = by_reward.RewardScorer(name, Mixture([(reward, 1.0)]), torch.device("cpu"))
        pairs, truths, clips = [], [], []
        for i in range(count):
            pair, videos, truth, clip = _known(i, model)
            scores = scorer(videos[0], videos[1], pair)
            still = {"first": [1.0] * len(truth), "second": [1.0] * len(truth)}
            pairs.append(pair.model_copy(update=by_scores._parse({"scores": scores.model_dump(), "motion": still})))
            truths.append(truth)
            clips.append(clip)
        by_vote, margins = by_scores.decide(pairs, Labelling())
        as_whole, _ = by_scores.decide(pairs, Labelling(clip_label="score"))
        segments = [
            (a, t) for p, truth in zip(by_vote, truths, strict=True) for a, t in zip(p.labels, truth, strict=True)
        ]
        found[name] = {
            "segment margin": margins.segment,
            "segments, three ways": _share([a == t for a, t in segments]),
            "segments, where the truth is no tie": _share([a == t for a, t in segments if t]),
            "segments, where neither is a tie": _share([a == t for a, t in segments if t and a]),
            "whole clip, vote over segments": _share([p.label == c for p, c in zip(by_vote, clips, strict=True) if c]),
            "whole clip, judged at once": _share([p.label == c for p, c in zip(as_whole, clips, strict=True) if c]),
            "clips whose truth is no tie": sum(1 for c in clips if c),
        }
    return found


def _known(i: int, model: VideoModel) -> tuple[Pair, list[Tensor], list[int], int]:
    """A pair, its videos through the autoencoder, the truth of each segment, and that of the clip by flawed frames."""
    scenes = world.scenes(held_out=False)
    scene = scenes[derive_seed(5, i) % len(scenes)]
    videos, flawed = [], []
    for member in range(2):
        rng = np.random.default_rng([5, i, member])
        flaws = world.draw_flaws(scene, rng) if rng.random() < 0.5 else ()
        flaws = flaws or ((_flaw(rng),) if rng.random() < 0.6 else ())
        videos.append(torch.from_numpy(world.render(scene, np.random.default_rng([6, i]), flaws).video))
        flawed.append({frame for flaw in flaws for frame in range(flaw.start, flaw.end)})
    segments = cut(world.NUM_FRAMES, world.FPS, default_seconds(world.NUM_FRAMES, world.FPS))
    # a segment counts as flawed when half of its frames are
    bad = [[2 * len(f & set(range(a, b))) >= b - a for a, b in segments] for f in flawed]
    truth = [int(second) - int(first) for first, second in zip(*bad, strict=True)]
    decoded = list(model.decode(model.encode(torch.stack(videos))))
    pair = pair_row(str(i), prompt=scene.caption, fps=world.FPS, frames=world.NUM_FRAMES, segments=segments)
    return pair, decoded, truth, vote([len(flawed[1]) - len(flawed[0])])


def _flaw(rng: np.random.Generator) -> world.Flaw:
    length = int(rng.integers(4, 10))
    start = int(rng.integers(1, world.NUM_FRAMES - length + 1))
    return world.Flaw(str(rng.choice(world.FLAWS)), start, start + length, float(rng.random()))


def _task(model: VideoModel, settings: PairSettings) -> Task:
    return Task(model=model, sampling=model.settings, encode=PromptCache(model), settings=settings, seed=0)


def _apart(first: Tensor, second: Tensor) -> float:
    paths = [torch.from_numpy(tracker.track(video.numpy()).path) for video in (first, second)]
    return float((paths[0] - paths[1]).norm(dim=1).nanmean())


def _mean(values: list[float]) -> float:
    return round(float(np.nanmean(values)), 3)


def _share(right: list[bool]) -> float:
    return round(sum(right) / len(right), 3)


def main(name: str) -> None:
    with torch.no_grad():
        found = {"alignment": alignment, "labeller": labeller}[name]()
    print(json.dumps(found, indent=2))
    facts.write(f"pairs_{name}", found)


if __name__ == "__main__":
    main(sys.argv[1])
