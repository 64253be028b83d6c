"""A run of every method, killed at random moments and resumed: the files must be those of an undisturbed run."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.reliability.nursery import Ended, Nursery, Trap
from vpo_kit.registry import METHODS

METHOD_NAMES = tuple(name for name, target in METHODS.targets().items() if target.startswith("vpo_kit."))
FROM_PAIRS = {"dense", "structural", "dpo", "sft", "instruct", "kto", "mapo"}
OWN = {
    # two steps on one rollout, a reference that moves, pairs that must outlive the kill
    "online": ["num_candidates=2", "updates_per_rollout=2", "reference_every=2", "num_draws=1"],
    "nft": ["num_candidates=2", "updates_per_rollout=2", "old_growth=0.5"],  # an old policy that lags behind
    "grpo": ["num_candidates=2", "updates_per_rollout=2", "kl=0.1", "reference_update=ema", "clip=0.1"],
    "rwr": ["num_candidates=2", "updates_per_rollout=2"],
    "dense": ["fixed_draws=2"],  # reference errors that are kept from step to step
    "structural": ["reference_update=ema", "reference_decay=0.5", "safeguard=0.1"],
    "dpo": ["weight_alpha=0.5", "motion_weight=1.0"],
    "kto": ["reference_update=ema", "reference_decay=0.5"],
    "instruct": ["anchor=0.1"],
    "alignprop": ["grad_steps=2"],
}
ONE_BY_ONE = {"structural", "sft", "draft"}
"""Methods that are run with a micro-batch of one video."""
SIZES = {
    "sampling.frames": 9, "sampling.height": 32, "sampling.width": 32, "sampling.steps": 3, "sampling.guidance": 1,
    "batch_size": 2, "lora.rank": 4, "checkpoints.every": 1, "validation.every": 2, "validation.max_items": 2,
    "evaluation.judges": "[vqa]", "selection.num_prompts": 1,
    "health.disable": "[margin_runaway,winner_error,motion_collapse]",
}  # fmt: skip
STEPS = 4
LATENTS = (8, 3, 4, 4)
"""``(C, T, h, w)`` of the embedded model at these sizes."""


@dataclass(frozen=True)
class Case:
    """A method's run on the embedded model at its smallest sizes; with `measured` videos before and after as well."""

    method: str
    pairs: Path
    measured: bool = False

    def arguments(self, output: Path, *, resume: bool = False) -> list[str]:
        values = {**SIZES, "evaluation.num_prompts": int(self.measured)}
        values |= {} if self.measured else {"evaluation.judges": "[]"}
        settings = [f"{key}={value}" for key, value in values.items()]
        settings += [f"method.{text}" for text in OWN.get(self.method, [])]
        settings += ["micro_batch_size=1"] if self.method in ONE_BY_ONE else []
        data = ["--pairs", str(self.pairs)] if self.method in FROM_PAIRS else []
        options = ["--method", self.method, "--model", "sprites", "--steps", str(STEPS), "--output", str(output)]
        sets = [part for text in settings for part in ("--set", text)]
        return ["train", *options, *data, *sets, *(["--resume"] if resume else [])]


@dataclass(frozen=True)
class Trial:
    """One folder's run, killed at `traps` one after the other and then brought to its end."""

    traps: tuple[Trap, ...]
    kills: int
    during: tuple[str, ...]
    """What each kill interrupted, as far as the files tell."""
    problem: str | None


def undisturbed(nursery: Nursery, case: Case, folder: Path) -> Ended:
    """The run that the others must equal. Raises `RuntimeError` when it fails."""
    ended = nursery.run(case.arguments(folder), folder)
    if ended.code:
        raise RuntimeError(f"{case.method} fails undisturbed:\n{ended.output}")
    return ended


def draw(rng: random.Random, whole: Ended, kind: str, share: float = 1.0) -> Trap:
    """A random trap somewhere in the first `share` of a run."""
    if kind == "time":
        return Trap("time", rng.uniform(0.05, share) * whole.seconds)
    if kind == "pass":
        return Trap("pass", rng.randint(1, max(1, int(share * whole.passes))))
    return Trap("file", rng.randint(1, max(1, int(share * whole.files))))


def attempt(nursery: Nursery, case: Case, whole: Path, folder: Path, traps: Sequence[Trap]) -> Trial:
    """Kill at each trap, resuming in between, then run to the end and compare with the run in `whole`."""
    kills, during = 0, []
    for i, trap in enumerate(traps):
        ended = nursery.run(case.arguments(folder, resume=i > 0), folder, trap=trap)
        if ended.code not in (0, -9):
            return Trial(tuple(traps), kills, tuple(during), f"ends with {ended.code}: {_last(ended.output)}")
        if ended.killed:
            kills += 1
            during.append(ended.during or interrupted(folder))
    ended = nursery.run(case.arguments(folder, resume=True), folder)
    problem = f"resume ends with {ended.code}: {_last(ended.output)}" if ended.code else difference(whole, folder)
    return Trial(tuple(traps), kills, tuple(during), problem)


def interrupted(folder: Path) -> str:
    """What a run was doing when it was killed."""
    partial = [path for path in folder.rglob("*") if ".part" in path.name]
    if any(path.parent.name == "checkpoints" for path in partial):
        return "writing a checkpoint"
    if partial:
        return "writing another file"
    if not (folder / "config.yaml").is_file():
        return "loading"
    if (folder / "lora").is_dir():
        return "after the last step"
    begun = (folder / "metrics.jsonl").is_file()
    return "training" if begun else "before the first step"


def difference(whole: Path, other: Path) -> str | None:
    """What two finished runs differ in: LoRA, log, measured numbers or the files that are there. None for nothing."""
    name = "lora/pytorch_lora_weights.safetensors"
    one, two = load_file(whole / name), load_file(other / name)
    if one.keys() != two.keys() or not all(torch.equal(one[key], two[key]) for key in one):
        return "the LoRA differs"
    if not any(bool(value.any()) for key, value in one.items() if "lora_B" in key):
        return "the LoRA is still zero: nothing was trained"
    if (whole / "metrics.jsonl").read_bytes() != (other / "metrics.jsonl").read_bytes():
        return "metrics.jsonl differs"
    results = [json.loads((folder / "summary.json").read_text()) for folder in (whole, other)]
    if any(results[0][key] != results[1][key] for key in ("before", "after", "health")):
        return "summary.json differs"
    listings = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (whole, other)]
    if listings[0] != listings[1]:
        return f"other files: {sorted(set(listings[0]) ^ set(listings[1]))}"
    return None


def series(nursery: Nursery, case: Case, folder: Path, count: int, seed: int) -> list[Trial]:
    """Trials of one kill each, of all kinds in turn, until `count` runs were killed or one went wrong.

    A trap for time may come too late on a machine whose load changes; it is then drawn again.
    """
    whole = undisturbed(nursery, case, folder / "whole")
    trials: list[Trial] = []
    for i in range(3 * count):
        rng = random.Random(f"{seed}/{case.method}/{i}")
        trap = draw(rng, whole, ("time", "file", "pass")[i % 3])
        trials.append(attempt(nursery, case, folder / "whole", folder / str(i), [trap]))
        if trials[-1].problem is not None:
            break
        shutil.rmtree(folder / str(i))
        if sum(trial.kills for trial in trials) == count:
            break
    return trials


def _last(output: str) -> str:
    return output.strip().splitlines()[-1] if output.strip() else "no output"
