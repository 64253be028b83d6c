"""What a cheaper rollout costs and whom it makes the winner: ``python -m benchmarks.cheaper_rollouts [--prompts 96]``.

Candidates of training captions of the embedded model, the same first noises in every row. The first row is the chain
that the model is looked at with, decoded by the autoencoder and judged by `vqa`; each other row changes one thing. What
matters is whether it picks the same winner: the share of prompts where it does, and how much of the full chain's lead
of its best candidate over the mean one the other's pick has, by the full chain's own scores. Writes
``results/cheaper_rollouts.json`` and the table in ``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import facts
from vpo_kit import models
from vpo_kit.folders import prompts_of
from vpo_kit.models import memory
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.passes import lowered
from vpo_kit.models.settings import Settings, Size
from vpo_kit.models.step_cache import step_cache
from vpo_kit.prompts import read_prompts
from vpo_kit.rewards.vqa import VQA
from vpo_kit.sampler import derive_seed, draw_noise, sample
from vpo_kit.training.recipe import spread

CANDIDATES, BATCH = 4, 16
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
RESULTS = facts.RESULTS / "cheaper_rollouts.json"
BEGIN, END = "<!-- table: python -m benchmarks.cheaper_rollouts -->", "<!-- end of table -->"


@dataclass(frozen=True, kw_only=True)
class Way:
    """A rollout: `settings` over the model's own, `cache` is the threshold of the first-block cache; `lowered` has
    passes in bfloat16; with `after` the clean video that is expected after so many steps is judged, and the rest of
    the chain left out; with `halved` it is half as wide and high, from the same noise, averaged over squares.
    """

    settings: dict[str, Any]
    preview: bool = False
    cache: float | None = None
    lowered: bool = False
    after: int | None = None
    halved: bool = False


FULL, COMPILED = "the full chain: 8 steps, guidance 3", "blocks compiled (`compile`)"
WAYS = {
    FULL: Way(settings={}),
    "small decoder (`rollout_decoder=preview`)": Way(settings={}, preview=True),
    "passes in bfloat16 (`rollout_dtype`)": Way(settings={}, lowered=True),
    "small decoder, bfloat16": Way(settings={}, preview=True, lowered=True),
    "6 steps (`rollout_steps`)": Way(settings={"steps": 6}),
    "5 steps": Way(settings={"steps": 5}),
    "4 steps": Way(settings={"steps": 4}),
    "guidance off (`rollout_guidance=1`)": Way(settings={"guidance": 1.0}),
    "guided at levels of .5 and more (`rollout_guidance_interval`)": Way(settings={"guidance_interval": (0.5, 1.0)}),
    "guided at levels of .8 and more": Way(settings={"guidance_interval": (0.8, 1.0)}),
    "first-block cache .2 (`rollout_cache`)": Way(settings={}, cache=0.2),
    "first-block cache .3": Way(settings={}, cache=0.3),
    "first-block cache .5": Way(settings={}, cache=0.5),
    "small decoder and first-block cache .3": Way(settings={}, preview=True, cache=0.3),
    "judged after 4 of 8 steps, small decoder": Way(settings={}, preview=True, after=4),
    "judged after 6 of 8 steps, small decoder": Way(settings={}, preview=True, after=6),
    "half as wide and high": Way(settings={}, halved=True),
}


class Enough(Exception):
    """The steps that were wanted are done."""


class Rollouts:
    """The embedded model, its judge, and the candidates' noises."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self.model: VideoModel = models.load("sprites")
        self.encode, self.judge = PromptCache(self.model), VQA()
        self.texts = [prompt for prompt in prompts for _ in range(CANDIDATES)]
        self.seeds = [derive_seed(0, "cheaper", i) for i in range(len(self.texts))]
        self.encode(self.texts)

    @torch.no_grad()
    def scores(self, way: Way) -> tuple[Tensor, float]:
        """The candidates' scores ``[P, n]``, and the processor's seconds for each."""
        found, started = [], time.process_time()
        for first in range(0, len(self.seeds), BATCH):
            found.append(self._scored(way, slice(first, first + BATCH)))
        seconds = time.process_time() - started
        return torch.cat(found).view(-1, CANDIDATES), seconds / len(self.seeds)

    def _scored(self, way: Way, rows: slice) -> Tensor:
        model, settings = self.model, self.model.settings.changed(**way.settings)
        noise = draw_noise(model.latent_shape(*settings.size), self.seeds[rows])
        if way.halved:  # a mean of four, times two, has the noise's deviation again
            noise = 2 * torch.nn.functional.avg_pool3d(noise, (1, 2, 2))
            settings = settings.sized(Size(settings.frames, settings.height // 2, settings.width // 2))
        with lowered(model, torch.bfloat16 if way.lowered else None), step_cache(model, way.cache):
            latents = self._sampled(way, settings, noise, self.texts[rows])
        video = model.look(latents) if way.preview else model.decode(latents)
        return self.judge(video, self.texts[rows], fps=settings.fps).score

    def _sampled(self, way: Way, settings: Settings, noise: Tensor, texts: Sequence[str]) -> Tensor:
        model = self.model
        guidance = model.guidance(settings, self.encode([settings.negative_prompt]))
        conditions = self.encode(texts)
        if way.after is None:
            return sample(model, conditions, noise=noise, steps=settings.steps, guidance=guidance)
        reached: list[Tensor] = []

        def watch(step: int, latents: Tensor) -> None:
            if step + 1 == way.after:
                reached.append(latents)
                raise Enough

        with suppress(Enough):
            sample(model, conditions, noise=noise, steps=settings.steps, guidance=guidance, callback=watch)
        scheduler = model.new_scheduler(settings.steps, noise.shape[1:])
        time_ = scheduler.timesteps[way.after]
        t = model.schedule.chain_times(scheduler)[way.after].expand(len(noise))
        output = guidance.predict(model.predict, reached[0], time_, conditions)
        return model.schedule.to_clean(reached[0], output, t)


def agreement(full: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """How far another rollout's pick is the full chain's, with intervals over prompts."""
    places = np.arange(len(full))
    same = (full.argmax(1) == other.argmax(1)).astype(float)
    lead = full.max(1) - full.mean(1)
    kept = full[places, other.argmax(1)] - full.mean(1)
    drawn = np.random.default_rng(0).integers(0, len(full), (2000, len(full)))
    shares, leads = same[drawn].mean(1), kept[drawn].sum(1) / lead[drawn].sum(1)

    def interval(values: np.ndarray) -> list[float]:
        return [round(float(v), 3) for v in np.quantile(values, (0.025, 0.975))]

    return {
        "same winner": round(float(same.mean()), 3),
        "same winner, interval": interval(shares),
        "lead kept": round(float(kept.sum() / lead.sum()), 3),
        "lead kept, interval": interval(leads),
    }


def compiled(rollouts: Rollouts) -> float:
    """Seconds a candidate with the blocks compiled, once that is done, by the same full chain."""
    memory.tune(rollouts.model, compile=True)
    part = slice(0, BATCH)
    with torch.no_grad():
        rollouts._scored(WAYS[FULL], part)
        started = time.process_time()
        for _ in range(3):
            rollouts._scored(WAYS[FULL], part)
    return (time.process_time() - started) / (3 * BATCH)


def row(rollouts: Rollouts, name: str, full: Tensor, once: float) -> dict[str, Any]:
    """What a way costs, `once` being the full chain's seconds for a candidate, and whom it makes the winner."""
    if name == COMPILED:
        own, seconds = {}, compiled(rollouts)
    else:
        scores, seconds = rollouts.scores(WAYS[name])
        own = agreement(full.numpy(), scores.numpy())
    return {"seconds": round(seconds, 4), "time": round(seconds / once, 3), **own}


def table(found: dict[str, Any]) -> str:
    """The rows in Markdown: time as a share of the full chain's."""
    lines = ["| rollout | time | same winner | lead of the winner kept |", "|---|---|---|---|"]
    for name, row in found["ways"].items():
        shown = "" if "same winner" not in row else f"{row['same winner']:.2f} {row['same winner, interval']}"
        kept = "" if "lead kept" not in row else f"{row['lead kept']:.2f} {row['lead kept, interval']}"
        lines.append(f"| {name} | {row['time']:.2f} | {shown} | {kept} |")
    return "\n" + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=96)
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = prompts_of("sprites", "train")
    assert path is not None
    rollouts = Rollouts(spread(read_prompts(path), given.prompts))
    rollouts.scores(WAYS[FULL])  # a first time for what is slow once
    full, once = rollouts.scores(WAYS[FULL])
    kept: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))["ways"] if RESULTS.is_file() else {}
    ways = {FULL: {"seconds": round(once, 4), "time": 1.0}}
    for name in [*list(WAYS)[1:], COMPILED]:
        ways[name] = kept.get(name) or {"commit": facts.facts()["commit"], **row(rollouts, name, full, once)}
        print(name, ways[name], flush=True)
    found = {
        "command": "python -m benchmarks.cheaper_rollouts",
        "prompts": given.prompts, "candidates": CANDIDATES, "judge": "vqa", "ways": ways,
    }  # fmt: skip
    facts.write("cheaper_rollouts", found)
    facts.fill(PAGE, BEGIN, END, table(found))


if __name__ == "__main__":
    main()
