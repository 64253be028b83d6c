"""What a shipped recipe reaches: ``python -m benchmarks.learning --work FOLDER NAME -- [arguments of vpo compare]``.

Trains it with several seeds by `vpo compare`, on all held-out captions, and writes ``results/learning/NAME.json``: the
board, and of every row what a board does not say: the interval of each seed, the share of clips that got better, those
that were destroyed, and how one sample stands to the base's best of eight. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import facts
from vpo_kit.evaluation import best_of
from vpo_kit.evaluation.samples import Results, finished
from vpo_kit.evaluation.statistics import paired

JUDGE = "gold"
SHOWN = (JUDGE, "vqa", "flawed", "motion", "text_accuracy", "speed")
DESTROYED = -0.6
"""A clip that falls by more, by the held-out judge, is one that training has destroyed."""


def row(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """One method of the board, from its runs' own measurements."""
    before, after, groups, strengths, seconds = [], [], [], [], []
    by_seed = {}
    for run in found["runs"]:
        samples = folder / "runs" / f"{found['name']}-{run['seed']}" / "samples"
        pair = [finished(path) for path in (samples / "step-000000", max(samples.glob("step-*")))]
        assert pair[0] is not None
        assert pair[1] is not None
        before.append(pair[0])
        after.append(pair[1])
        groups += pair[0].groups
        summary = json.loads((samples.parent / "summary.json").read_text(encoding="utf-8"))
        strengths.append((summary.get("selection") or {}).get("strength"))
        seconds.append(summary["seconds"])
        by_seed[run["seed"]] = {key: asdict(_paired([pair[0]], [pair[1]], pair[0].groups, key)) for key in SHOWN}
    change = np.concatenate(
        [np.subtract(b.metrics[JUDGE], a.metrics[JUDGE]) for a, b in zip(before, after, strict=True)]
    )
    best = best_of_eight(folder, before[0])
    return {
        "name": found["name"], "by_seed": by_seed, "strengths": strengths, "seconds": seconds,
        # prompts are drawn anew, each with all its seeds
        "pooled": {key: asdict(_paired(before, after, groups, key)) for key in SHOWN},
        "better": float((change > 0).mean()), "destroyed": float((change < DESTROYED).mean()),
        "worst": float(change.min()), "clips": len(change),
        **({"against best of eight": asdict(_paired([best] * len(after), after, groups, JUDGE))} if best else {}),
    }  # fmt: skip


def _paired(before: list[Results], after: list[Results], groups: list[int], key: str) -> Any:
    old, new = ([value for one in side for value in one.metrics[key]] for side in (before, after))
    return paired(old, new, groups)


def best_of_eight(folder: Path, base: Results) -> Results | None:
    """Of each prompt's candidates the one that `vqa` likes best; None where the board has none."""
    measured = [finished(path / "samples/step-000000") for path in sorted((folder / "base").glob("*-best-of-8"))]
    candidates = measured[0] if measured else None
    return best_of.picked(base, candidates, candidates.metrics["vqa"], 8, "best of 8") if candidates else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("arguments", nargs="*", help="of vpo compare, after --")
    given = parser.parse_args()
    arguments = ["compare", *given.arguments, "--set", "evaluation.num_prompts=144", "--set", "evaluation.seed=0"]
    given.work.mkdir(parents=True, exist_ok=True)
    root = str(Path(__file__).parents[2])
    subprocess.run(
        [sys.executable, "-m", "vpo_kit", *arguments, "--output", given.name], check=True, cwd=given.work,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    folder = given.work / given.name
    board = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    trained = [
        found for found in board["rows"] if (folder / "runs" / f"{found['name']}-{found['runs'][0]['seed']}").is_dir()
    ]
    rows = [row(folder, found) for found in trained if found["runs"][0]["status"] != "open"]
    facts.write(f"learning/{given.name}", {"command": shlex.join(["vpo", *arguments]), "rows": rows, "board": board})
    for one in rows:
        spans = {key: f"{c['difference']:+.3f} [{c['low']:+.3f}, {c['high']:+.3f}]" for key, c in one["pooled"].items()}
        print(
            f"{one['name']}: {spans}, better {one['better']:.0%}, destroyed {one['destroyed']:.2%}, {one['strengths']}"
        )


if __name__ == "__main__":
    main()
