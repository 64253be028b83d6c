"""Trials of settings: ``python -m benchmarks.learning.tune TRIALS.json --output FOLDER [--shard 0/2] [--minutes 60]``.

A trial is a name, the settings of a run as `--set` would give them, and a seed. Each is trained and measured at several
strengths on the captions that are kept out of training, never on those that are reported. One JSON line for each goes
into ``FOLDER/SHARD.jsonl``; trials that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from vpo_kit import config, models
from vpo_kit.commands import initial, recipe, sources
from vpo_kit.commands.recipe import Recipe
from vpo_kit.errors import HealthError
from vpo_kit.evaluation.evaluate import Plan, measure, videos
from vpo_kit.folders import prompts_of
from vpo_kit.methods.base import Context
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.processes import Processes
from vpo_kit.prompts import read_prompts
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Mixture, Reward
from vpo_kit.training.data import Pairs
from vpo_kit.training.folder import RunFolder
from vpo_kit.training.loop import Job, train
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.stream import Stream
from vpo_kit.video import motion

STRENGTHS = (0.3, 0.6, 1.0)
JUDGES = ("vqa", "gold")


@dataclass(frozen=True)
class Trial:
    """Settings of one run."""

    name: str
    values: Mapping[str, Any]
    seed: int

    @property
    def key(self) -> str:
        return f"{self.name}/{self.seed}"


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
        self.plan = Plan(read_prompts(path), videos_per_prompt, self.model.settings, 64, 0)
        self.base = self.measured(truth=True)

    def measured(self, *, truth: bool) -> dict[str, list[float]]:
        """Metrics of every video of the plan; the world's truth takes longer than all the rest together."""
        found: dict[str, list[float]] = {}
        for items, video in videos(self.model, self.plan, encode=self.encode):
            texts = [self.plan.prompts[i] for i, _ in items]
            if truth:
                own = measure(video, texts, self.judges, self.plan.settings.fps)
            else:
                with torch.no_grad():
                    own = {j.spec.name: j(video, texts, fps=self.plan.settings.fps).score.tolist() for j in self.judges}
                own["motion"] = motion(video).tolist()
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
            "key": trial.key, "name": trial.name, "seed": trial.seed, "values": trial.values, "stopped": stopped,
            "steps": len(history), "passes": sum(row["passes"] for row in history), "train_seconds": round(trained, 1),
            "seconds": round(time.monotonic() - started, 1), "log": _last(history), "changes": changes,
        }  # fmt: skip

    def _train(self, made: Recipe, policy: LoraPolicy, folder: Path) -> tuple[str, list[dict[str, float]]]:
        run, settings, processes = made.run, self.model.settings, Processes()
        source = sources.build(made, self.model, settings, lambda _: None)
        reward: Mixture | None = rewards.load(made.reward, self.model.device) if made.reward else None
        context = Context(
            policy=policy,
            reward=reward,
            sampling=settings,
            negative=self.encode([settings.negative_prompt]),
            batch_size=run.batch_size,
            sampling_batch_size=run.sampling.batch_size,
            micro_batch_size=run.micro_batch_size,
            seed=run.seed,
            scores=source.scores if isinstance(source, Pairs) else None,
        )
        method = made.method(made.method_config, context)
        everything = range(len(source.prompts))
        stream = Stream(source, everything, run.batch_size, run.seed, self.encode, processes)
        history: list[dict[str, float]] = []
        job = Job(
            run, method, policy, stream, None, RunFolder(folder / "run"), processes, history.append, lambda _: None
        )
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
    """The trials of a file: ``[{"name": ..., "set": ["a.b=1"], "seeds": [0, 1]}]``, seed by seed."""
    listed = json.loads(path.read_text(encoding="utf-8"))
    for seed in sorted({seed for entry in listed for seed in entry["seeds"]}):
        for entry in listed:
            if seed in entry["seeds"]:
                yield Trial(entry["name"], config.read_assignments(entry["set"]), seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--shard", default="0/1", help="this process's share: number/count")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no trial after so many")
    parser.add_argument("--videos-per-prompt", type=int, default=1)
    given = parser.parse_args()
    number, count = map(int, given.shard.split("/"))
    given.output.mkdir(parents=True, exist_ok=True)
    log = given.output / f"{number}.jsonl"
    done = {
        json.loads(line)["key"]
        for file in given.output.glob("*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
    }
    started, laboratory = time.monotonic(), Laboratory(given.videos_per_prompt)
    for trial in [trial for i, trial in enumerate(read(given.trials)) if i % count == number]:
        if trial.key in done or time.monotonic() - started > 60 * given.minutes:
            continue
        row = laboratory.run(trial)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        best = row["changes"]["1.0"]
        print(f"{trial.key}: gold {best['gold'][0]:+.3f} vqa {best['vqa'][0]:+.3f} motion {best['motion_share']:+.1%} "
              f"better {best['better']:.0%} worst {best['worst']:+.2f} {row['train_seconds']:.0f} s {row['stopped']}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
