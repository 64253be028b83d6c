"""Trials of settings: ``python -m benchmarks.learning.tune TRIALS.json --output FOLDER [--minutes 60]``.

A trial is a name, the settings of a run as `--set` would give them, and a seed. Each is trained and measured at several
strengths on the captions that are kept out of training, never on those that are reported, into a file of ``FOLDER``.
Any number of these processes share the work; trials that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from filelock import FileLock, Timeout
from rich.console import Console

from vpo_kit import config, files, models
from vpo_kit.config import Validation
from vpo_kit.errors import HealthError
from vpo_kit.evaluation.measuring import measure
from vpo_kit.evaluation.samples import SamplePlan, videos
from vpo_kit.folders import prompts_of
from vpo_kit.library import sources
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.processes import Processes
from vpo_kit.prompts import read_prompts
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Mixture, Reward
from vpo_kit.training import initial, recipe
from vpo_kit.training.loop import train
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.recipe import Recipe
from vpo_kit.training.run import Assembly
from vpo_kit.training.run_folder import RunFolder
from vpo_kit.truth import truth_of

STRENGTHS = (0.3, 0.45, 0.6, 0.8, 1.0)
JUDGES = ("vqa", "gold")


@dataclass(frozen=True)
class Trial:
    """Settings of one run."""

    name: str
    values: Mapping[str, Any]
    seed: int

    @property
    def file(self) -> str:
        return f"{re.sub(r'[^A-Za-z0-9.]+', '-', self.name)}-{self.seed}.json"


class Laboratory:
    """The embedded model with its judges, and the base's measurement."""

    def __init__(self, videos_per_prompt: int) -> None:
        self.model: VideoModel = models.load("sprites")
        self.judges: list[Reward] = rewards.load(
            [plan for name in JUDGES for plan in rewards.plan(name, {})], self.model.device
        ).parts
        self.encode = PromptCache(self.model)
        path = prompts_of("sprites", "validation")
        assert path is not None
        self.plan = SamplePlan(
            inputs=read_prompts(path),
            videos_per_prompt=videos_per_prompt,
            settings=self.model.settings,
            batch_size=64,
            seed=0,
        )
        self.base = self.measured(truth=True)

    def measured(self, *, truth: bool) -> dict[str, list[float]]:
        """Metrics of every video of the plan; the world's truth takes longer than all the rest together."""
        found: dict[str, list[float]] = {}
        known = truth_of(self.model, self.plan.prompts)
        for items, video in videos(self.model, self.plan, encode=self.encode):
            texts = [self.plan.prompts[i] for i, _ in items]
            own = measure(video, texts, self.judges, self.plan.settings.fps, truth=known if truth else None)
            for key, values in own.items():
                found.setdefault(key, []).extend(values)
        return found

    def run(self, trial: Trial) -> dict[str, Any]:
        """Train, and measure at every strength: for each metric the mean change and its standard error over prompts."""
        started, made = time.monotonic(), initial.resolve(recipe.complete({**trial.values, "seed": trial.seed}))
        with TemporaryDirectory() as folder:
            policy = LoraPolicy(self.model, made.run.lora, trial.seed)
            try:
                stopped, history = self._train(made, policy, Path(folder))
                trained = time.monotonic() - started
                changes = {}
                for strength in STRENGTHS:
                    policy.keep(strength)
                    changes[str(strength)] = self._changes(self.measured(truth=strength == 1.0))
            finally:
                names = ["default", *(["reference"] if policy.reference_state() else [])]
                self.model.network.delete_adapters(names)
        return {
            "name": trial.name, "seed": trial.seed, "values": trial.values, "stopped": stopped,
            "steps": len(history), "passes": sum(row["passes"] for row in history), "train_seconds": round(trained, 1),
            "seconds": round(time.monotonic() - started, 1), "log": _last(history), "changes": changes,
        }  # fmt: skip

    def _train(self, made: Recipe, policy: LoraPolicy, folder: Path) -> tuple[str, list[dict[str, float]]]:
        run, settings, processes = made.run, self.model.settings, Processes()
        source = sources.build(made, self.model, settings, Console(quiet=True), processes)
        reward: Mixture | None = rewards.load(made.reward, self.model.device) if made.reward else None
        whole = run.model_copy(update={"validation": Validation(share=0.0)})
        parts = Assembly(run=whole, policy=policy, settings=settings, encode=self.encode, processes=processes)
        method = made.method(made.method_config, parts.context(reward, source=source))
        history: list[dict[str, float]] = []
        job = parts.job(method, source, RunFolder(folder / "run"), on_step=lambda row, _: history.append(row))
        try:
            train(job)
        except HealthError as error:
            return f"{error.check}: {error}", history
        return "", history

    def _changes(self, after: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in (key for key in ("vqa", "gold", "motion", "flawed", "text_accuracy", "speed") if key in after):
            change = torch.tensor(after[key]) - torch.tensor(self.base[key])
            found[key] = [float(change.mean()), float(change.std() / len(change) ** 0.5)]
        gold = torch.tensor(after["gold"]) - torch.tensor(self.base["gold"])
        found["motion_share"] = float(
            torch.tensor(after["motion"]).mean() / torch.tensor(self.base["motion"]).mean() - 1
        )
        found["better"] = float((gold > 0).float().mean())
        found["worst"] = float(gold.min())
        found["destroyed"] = float((gold < -0.6).float().mean())
        return found


def _last(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of the log's last ten rows."""
    rows = history[-10:]
    keys = {key for row in rows for key in row} - {"step"}
    return {key: sum(row.get(key, 0.0) for row in rows) / len(rows) for key in sorted(keys)} if rows else {}


def read(path: Path) -> Iterator[Trial]:
    """The trials of a file in its order: ``[{"name": ..., "set": ["a.b=1"], "seeds": [0, 1]}]``."""
    for entry in json.loads(path.read_text(encoding="utf-8")):
        for seed in entry["seeds"]:
            yield Trial(entry["name"], config.read_assignments(entry["set"]), seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no trial after so many")
    parser.add_argument("--videos-per-prompt", type=int, default=1)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    started, laboratory = time.monotonic(), Laboratory(given.videos_per_prompt)
    for trial in read(given.trials):
        target = given.output / trial.file
        if target.is_file() or time.monotonic() - started > 60 * given.minutes:
            continue
        try:
            # freed by the system where its process is killed
            with FileLock(given.output / f".{trial.file}.lock", timeout=0):
                if not target.is_file():
                    files.write(target, json.dumps(_said(laboratory.run(trial))) + "\n")
        except Timeout:  # another process is at it
            continue


def _said(row: dict[str, Any]) -> dict[str, Any]:
    """The row, printed in one line."""
    full = row["changes"]["1.0"]
    print(f"{row['name']}/{row['seed']}: gold {full['gold'][0]:+.3f} vqa {full['vqa'][0]:+.3f} "
          f"motion {full['motion_share']:+.1%} better {full['better']:.0%} worst {full['worst']:+.2f} "
          f"{row['train_seconds']:.0f} s {row['stopped']}", flush=True)  # fmt: skip
    return row


if __name__ == "__main__":
    main()
