"""Variances of differences before any board of the design is run: those of `benchmarks.learning.board`, whose rows were
trained with the same recipes.

They are what the power in ``design.md`` rests on until claims are decided. With one noise a prompt the noise's variance
counts as the prompt's, so a layout with more noises has at least the power that is shown.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import facts
from benchmarks.claims.scores import Scores
from vpo_kit.comparison.layout import Components

PAIRS = (
    ("dpo pairs=independent", "mapo"), ("dpo pairs=independent", "kto"), ("dpo pairs=independent", "dpo pairs=real"),
    ("kto", "mapo"), ("sft", "mapo"),
)  # fmt: skip
"""Rows whose differences are looked at: of methods that learn from what is finished, as most claims are."""
METRICS = ("gold", "motion")
SEEDS = 3
RESULT = "claims/pilot"


def run(work: Path) -> None:
    """Read the boards below the work folder of `benchmarks.learning.board` and write their variances."""
    rows: dict[str, Scores] = {}
    for path in sorted(work.glob("*/board")):
        if (path / "results.json").is_file():
            scores = Scores.measured(path)
            rows |= dict.fromkeys(scores.rows, scores)
    base = next(iter(rows.values())).base
    facts.write(RESULT, {
        "command": "python -m benchmarks.claims pilot",
        "seeds": SEEDS,
        "videos": len(base.groups),
        "means": {metric: float(np.mean(base.metrics[metric])) for metric in METRICS},
        "differences": [_difference(one, other, rows) for one, other in PAIRS],
    })  # fmt: skip


def known() -> tuple[dict[str, Components], dict[str, float]]:
    """The mean variances of each metric, and the base's mean of it; nothing where the pilot has not been read."""
    path = facts.RESULTS / f"{RESULT}.json"
    if not path.is_file():
        return {}, {}
    found = json.loads(path.read_text(encoding="utf-8"))
    between = {
        metric: Components.mean([Components(**one["variances"][metric]) for one in found["differences"]])
        for metric in found["means"]
    }
    return between, found["means"]


def _difference(one: str, other: str, rows: dict[str, Scores]) -> dict[str, Any]:
    sides = [rows[name].of(name, SEEDS) for name in (one, other)]
    assert len({tuple(result.prompts) for side in sides for result in side}) == 1
    groups = sides[0][0].groups
    apart = {metric: np.subtract(*[[r.metrics[metric] for r in side] for side in sides]) for metric in METRICS}
    return {
        "one": one, "other": other,
        "variances": {metric: asdict(Components.of(found.tolist(), groups)) for metric, found in apart.items()},
    }  # fmt: skip
