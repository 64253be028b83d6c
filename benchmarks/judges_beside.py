"""`vqa`, `gold` and `gold2` beside each other: ``python -m benchmarks.judges_beside``, some minutes of one thread.

On clips of the corpus that none of them was trained on, each clean, with a flaw that `gold2` alone was taught and with
one that the others were: how often each puts the clean clip first, and how their drops go together. On samples of the
embedded model: how their orders of one prompt's samples go together. Writes ``benchmarks/results/judges_beside.json``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import facts
from vpo_kit import models
from vpo_kit.evaluation.samples import SamplePlan, videos
from vpo_kit.folders import prompts_of
from vpo_kit.judged.against_people import spearman
from vpo_kit.prompts import read_prompts
from vpo_kit.rewards import degrade
from vpo_kit.rewards.frames import FramesReward
from vpo_kit.rewards.gold2 import Gold2
from vpo_kit.rewards.soften import Softness, soften
from vpo_kit.rewards.vqa import VQA, GoldVQA
from vpo_kit.sprites import world
from vpo_kit.sprites.judges import corpus

CONTENTS, SEED = 104, 70_001
PROMPTS, SAMPLES = 16, 6
Scores = Mapping[str, NDArray[np.float64]]


def planted(judges: list[FramesReward]) -> tuple[Scores, list[tuple[str, str]]]:
    """Scores ``[contents, 3]`` by judge: clean, a flaw of `UNTAUGHT`, one of `DEGRADATIONS`; and the names of both."""
    rows: dict[str, list[list[float]]] = {judge.spec.name: [] for judge in judges}
    names = []
    for i in range(CONTENTS):
        clip, rng = corpus.clip(SEED, i), np.random.default_rng([SEED, 1, i])
        kinds = list(degrade.UNTAUGHT)[i % len(degrade.UNTAUGHT)], str(rng.choice(sorted(degrade.DEGRADATIONS)))
        copies = [clip.video]
        for kind in kinds:
            start = int(rng.integers(0, clip.num_frames - 5))
            window, severity = (start, start + int(rng.integers(4, 6))), int(rng.integers(1, 6))
            copies.append((degrade.UNTAUGHT | degrade.DEGRADATIONS)[kind](clip, window, severity, rng))
        softness = Softness.draw(rng, float(rng.uniform(0, 0.7)))
        video = torch.stack([soften(copy, softness, rng) for copy in copies])
        for judge in judges:
            rows[judge.spec.name].append(judge(video, fps=world.FPS).score.tolist())
        names.append(kinds)
    return {name: np.array(found) for name, found in rows.items()}, names


def sampled(judges: list[FramesReward]) -> Scores:
    """Scores ``[prompts, samples]`` of the embedded model's held-out prompts."""
    model = models.load("sprites")
    file = prompts_of("sprites", "heldout")
    assert file is not None
    rows: dict[str, list[float]] = {judge.spec.name: [] for judge in judges}
    for _, video in videos(
        model,
        SamplePlan(
            inputs=read_prompts(file)[:PROMPTS],
            videos_per_prompt=SAMPLES,
            settings=model.settings,
            batch_size=16,
            seed=SEED,
        ),
    ):
        for judge in judges:
            rows[judge.spec.name].extend(judge(video, fps=model.settings.fps).score.tolist())
    return {name: np.array(found).reshape(PROMPTS, SAMPLES) for name, found in rows.items()}


def together(rows: Scores) -> dict[str, float]:
    """Mean rank correlation over the rows ``[n, k]`` of each two judges."""
    found = {}
    for one, other in itertools.combinations(rows, 2):
        each = [spearman(a, b) for a, b in zip(rows[one], rows[other], strict=True)]
        found[f"{one} and {other}"] = round(float(np.mean(each)), 3)
    return found


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    judges: list[FramesReward] = [VQA(), GoldVQA(), Gold2()]
    scores, names = planted(judges)
    drops = {name: found[:, :1] - found for name, found in scores.items()}
    right = {
        name: {
            "flaws that gold2 alone was taught": round(float((drop[:, 1] > 0).mean()), 3),
            "flaws of vqa and gold": round(float((drop[:, 2] > 0).mean()), 3),
            "by flaw": {
                kind: round(float((drop[[i for i, both in enumerate(names) if both[0] == kind], 1] > 0).mean()), 3)
                for kind in degrade.UNTAUGHT
            },
        }
        for name, drop in drops.items()
    }
    facts.write("judges_beside", {
        "command": "python -m benchmarks.judges_beside",
        "contents": CONTENTS,
        "clean first": right,
        "rank correlation of the drops": together({name: drop[:, 1:].T for name, drop in drops.items()}),
        "samples of the embedded model": {
            "prompts": PROMPTS,
            "samples of each": SAMPLES,
            "rank correlation in a prompt": together(sampled(judges)),
        },
    })  # fmt: skip


if __name__ == "__main__":
    main()
