"""The goal line, and what stops it: ``python -m benchmarks.learning.goal --board FOLDER --work FOLDER``.

The headline's recipe with one thing changed at a time (judge, steps, rank, candidates, pairs of a step), and with what
twenty minutes of two cores have room for, one seed each, by `vpo train` on all held-out captions: single samples after
training against the base's single samples, and against the base's best of eight as `vqa` picks them, both by the
held-out judge. ``--board`` is a board that `benchmarks.learning` made of the same captions and noises. It goes on where
it was stopped (minutes of processor are those of a run's last part), and ``results/learning/goal.json`` has every
variation that is finished.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

from benchmarks import facts
from benchmarks.learning.__main__ import JUDGE, SHOWN, best_of_eight
from vpo_kit.evaluation.samples import Results, finished
from vpo_kit.evaluation.statistics import paired
from vpo_kit.rewards.base import RewardSpec
from vpo_kit.rewards.vqa import GoldVQA

TARGET = "learning/goal"


class Oracle(GoldVQA):
    """The held-out judge as a reward: no method may use it, and it says what a judge without errors would bring."""

    spec: ClassVar[RewardSpec] = replace(GoldVQA.spec, name="oracle", for_training=True)


START = ["--steps", "112", "--set", "batch_size=8"]
"""What is varied: the recipe as it was until it took what was found here."""
VARIATIONS = {
    "the recipe": [],
    "judge: the held-out judge itself": ["--reward", "benchmarks.learning.goal:Oracle"],
    "steps: 224": ["--steps", "224"],
    "steps: 448, twenty minutes": ["--steps", "448"],
    "pairs: 16 prompts a step": ["--set", "batch_size=16"],
    "LoRA: rank 64": ["--set", "lora.rank=64"],
    "candidates: 16": ["--set", "method.num_candidates=16"],
}


def train(folder: Path, changed: list[str]) -> tuple[str, float]:
    """The run at `folder`, finished; returns the command and the minutes of processor that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = [*START, *changed, "--set", "evaluation.num_prompts=144"]
    arguments = ["train", "--method", "online", "--reward", "vqa", *own]
    if not (folder / "summary.json").is_file():
        going_on = ["--resume"] if (folder / "config.yaml").is_file() else []
        root = str(Path(__file__).parents[2])
        subprocess.run(
            [sys.executable, "-m", "vpo_kit", *arguments, *going_on, "--output", str(folder)], check=True,
            env={**os.environ, "PYTHONPATH": root},
        )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return shlex.join(["vpo", *arguments]), (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60


def ends(folder: Path) -> tuple[Results, Results]:
    """The base's samples and those after training."""
    samples = folder / "samples"
    first, last = (finished(path) for path in (samples / "step-000000", max(samples.glob("step-*"))))
    assert first is not None
    assert last is not None
    return first, last


def measured(folder: Path, best: Results) -> dict[str, Any]:
    """What a run gained, and how one of its samples stands to the base's best of eight."""
    before, after = ends(folder)
    assert before.prompts == best.prompts, f"{folder}: not the board's captions"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    against = paired(best.metrics[JUDGE], after.metrics[JUDGE], after.groups)
    changes = {key: asdict(paired(before.metrics[key], after.metrics[key], before.groups)) for key in SHOWN}
    return {
        "changes": changes, "motion share": changes["motion"]["difference"] / changes["motion"]["before"],
        "against best of eight": asdict(against), "strength": (summary.get("selection") or {}).get("strength"),
        "seconds": summary["seconds"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--board", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    singles = [path for path in (given.board / "base").glob("*/samples/step-000000") if "best" not in path.parts[-3]]
    base = finished(singles[0]) if singles else None
    assert base is not None
    best = best_of_eight(given.board, base)
    assert best is not None, f"{given.board} has no best of eight"
    result = facts.RESULTS / f"{TARGET}.json"
    known = json.loads(result.read_text(encoding="utf-8"))["rows"] if result.is_file() else {}
    rows = {}
    for name, changed in VARIATIONS.items():
        folder = (given.work / name.replace(": ", "-").replace(", ", "-").replace(" ", "-")).resolve()
        ended = (folder / "summary.json").is_file()
        command, minutes = train(folder, changed)
        minutes = known[name]["minutes of processor"] if ended and name in known else minutes
        rows[name] = {"command": command, "minutes of processor": round(minutes, 1), **measured(folder, best)}
        facts.write(TARGET, {"rows": rows})
        gain, against = rows[name]["changes"][JUDGE], rows[name]["against best of eight"]
        print(f"{name}: {gain['difference']:+.3f}, against the best of eight {against['difference']:+.3f} "
              f"[{against['low']:+.3f}, {against['high']:+.3f}]", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
