"""``make bench``: what the toolkit adds to the work that has to be done, as ratios taken in one process.

A ratio is the median over rounds that alternate between the two sides, so that a busy machine slows both alike.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vpo_kit import losses, models
from vpo_kit.config import Lora
from vpo_kit.evaluation.report import versions
from vpo_kit.methods.base import Batch, Context
from vpo_kit.methods.online import Online, OnlineConfig
from vpo_kit.models.loading import EMBEDDED
from vpo_kit.rewards import loading as rewards
from vpo_kit.sampler import draw_noise
from vpo_kit.training.loop import PromptCache
from vpo_kit.training.lora import LoraPolicy

RESULTS = Path(__file__).parent.parent / "results" / "speed.json"
NUM_PROMPTS, NUM_CANDIDATES, NUM_UPDATES = 4, 4, 1


def ratio(ours: Callable[[], object], bare: Callable[[], object], rounds: int = 7) -> tuple[float, float]:
    """Median seconds of `ours` over those of `bare`, and the median seconds of `bare`."""
    pairs = []
    for i in range(rounds + 1):
        taken = {}
        for side in (ours, bare) if i % 2 else (bare, ours):
            started = time.perf_counter()
            side()
            taken[side] = time.perf_counter() - started
        pairs.append((taken[ours], taken[bare]))
    pairs = pairs[1:]  # the first round warms up
    return statistics.median(a / b for a, b in pairs), statistics.median(b for _, b in pairs)


def online_step() -> tuple[float, float]:
    """One online step with a fresh rollout, over the network, autoencoder and reward calls that it must make."""
    model = models.load("sprites")
    policy = LoraPolicy(model, Lora(), seed=0)
    settings = model.settings
    encode = PromptCache(model)
    reward = rewards.load(rewards.plan("vqa", {}), model.device)
    config = OnlineConfig(num_candidates=NUM_CANDIDATES, updates_per_rollout=NUM_UPDATES, num_draws=1)
    negative = encode([settings.negative_prompt])
    method = Online(config, Context(policy, reward, settings, negative, NUM_PROMPTS * NUM_CANDIDATES, 0))
    folder = EMBEDDED["sprites"]
    prompts = (folder / "prompts" / "train.txt").read_text().splitlines()[:NUM_PROMPTS]
    conditions = encode(prompts)
    count = NUM_PROMPTS * NUM_CANDIDATES
    shape = model.latent_shape(settings.frames, settings.height, settings.width)
    noise = draw_noise(shape, range(2 * count))
    rolled, paired = conditions.repeat(NUM_CANDIDATES), conditions.repeat(2)
    negatives = negative.expand(count)
    time_in = torch.full((2 * count,), 500.0)

    def ours() -> None:
        method.step(Batch(0, prompts, conditions)).loss.backward()

    def bare() -> None:
        with torch.no_grad():
            for _ in range(settings.steps):
                model.predict(noise[:count], time_in[:count], rolled)
                model.predict(noise[:count], time_in[:count], negatives)
            video = model.decode(noise[:count])
            reward.parts[0](video, None, fps=settings.fps)
            with policy.reference():
                model.predict(noise[: 2 * NUM_PROMPTS], time_in[: 2 * NUM_PROMPTS], paired)
        output: Tensor = model.predict(noise[: 2 * NUM_PROMPTS], time_in[: 2 * NUM_PROMPTS], paired)
        losses.frame_errors(output, torch.zeros_like(output)).mean().backward()

    return ratio(ours, bare)


BENCHMARKS: dict[str, tuple[Callable[[], tuple[float, float]], str, float]] = {
    "online step": (online_step, "the bare network, autoencoder and reward calls", 1.15),
}


def main() -> int:
    table = Table("what", "against", "seconds", "ratio", "aim", "")
    rows, missed = {}, False
    for name, (measure, against, aim) in BENCHMARKS.items():
        found, seconds = measure()
        rows[name] = {"against": against, "seconds": round(seconds, 4), "ratio": round(found, 3), "aim": aim}
        missed |= found > aim
        verdict = "ok" if found <= aim else "missed"
        table.add_row(name, against, f"{seconds:.3f}", f"{found:.3f}", f"<= {aim}", verdict)
    Console().print(table)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    facts = {"commit": commit.strip(), "machine": platform.machine(), "cores": os.cpu_count(), "versions": versions()}
    RESULTS.write_text(json.dumps({**facts, "threads": torch.get_num_threads(), "ratios": rows}, indent=2) + "\n")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
