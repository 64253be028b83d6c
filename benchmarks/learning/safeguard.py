"""What the safeguard does to the winner's error: ``python -m benchmarks.learning.safeguard --pairs SET --work FOLDER``.

DPO on best against worst, with the model's own recipe but for a higher rate, without the safeguard and with it, the
same seeds: how far the errors of winners and losers of training pairs have risen over the last steps, as shares of
the reference's, and how right the model is about pairs that it is not trained on. It goes on where it was stopped;
``results/learning/safeguard.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import facts
from benchmarks.claims.sets import vpo

SLACKS = ("null", "0.0", "0.5")
SEEDS, STEPS, LAST = 3, 100, 20
TOLD = ("winner_error_change", "loser_error_change", "margin", "implicit_accuracy")
HELD_OUT = ("heldout_loss", "heldout_accuracy")


def train(work: Path, pairs: Path, slack: str, seed: int, steps: int) -> Sequence[Mapping[str, float]]:
    """The log of a run, made where it is not there yet."""
    name = f"{slack}-{seed}"
    if not (work / name / "summary.json").is_file():
        sets = (
            f"method.safeguard={slack}", "evaluation.num_prompts=0", "selection.strengths=[]",
            f"validation.every={max(1, steps // 5)}", "health.disable=[winner_error]", "optimiser.lr=1e-3",
        )  # fmt: skip
        going_on = ["--resume"] if (work / name / "config.yaml").is_file() else []
        vpo(
            work, "train", "--method", "dpo", "--pairs", str(pairs.resolve()), "--seed", str(seed),
            "--steps", str(steps),
            *(word for one in sets for word in ("--set", one)), *going_on, "--output", name,
        )  # fmt: skip
    lines = (work / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def told(log: Sequence[Mapping[str, float]], last: int) -> dict[str, float]:
    """Means over the last steps, and the last figures of held-out pairs."""
    held = [row for row in log if HELD_OUT[0] in row][-1]
    found = {name: fmean(row[name] for row in log[-last:]) for name in TOLD}
    return found | {name: held[name] for name in HELD_OUT}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    for seed in range(SEEDS):
        for slack in SLACKS:
            log = train(given.work, given.pairs, slack, seed, given.steps)
            rows.setdefault(slack, {})[str(seed)] = told(log, min(LAST, len(log)))
    means = {slack: {name: fmean(run[name] for run in runs.values()) for name in (*TOLD, *HELD_OUT)}
             for slack, runs in rows.items()}  # fmt: skip
    facts.write("learning/safeguard", {"steps": given.steps, "last": LAST, "by_seed": rows, "means": means})
    for slack, row in means.items():
        print(slack, {name: round(value, 4) for name, value in row.items()})


if __name__ == "__main__":
    main()
