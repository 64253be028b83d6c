"""A claim as a `vpo compare`: run it, keep its results, and set single rows against each other.

A board compares each row with the base. Where a claim is about two rows, both were trained from the same seeds of
training and measured on the same noises, so the differences are paired: `contrast`.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import facts
from benchmarks.claims import page, plots
from benchmarks.claims.sets import vpo
from vpo_kit.comparison import pooling
from vpo_kit.comparison.plan import Row
from vpo_kit.evaluation.samples import Results

SHOWN = ("gold", "vqa", "flawed", "motion", "speed")
"""The metrics that the contrasts are taken in."""


@dataclass(frozen=True)
class Claim:
    """What `vpo compare` is told beside ``--output``, and the pairs of rows that the claim sets against each other.

    ``CLAIM/ROW`` is a row of another claim: it has been run before, with the same seeds, budget and evaluation.
    """

    arguments: Sequence[str]
    contrasts: Sequence[tuple[str, str]] = ()
    metrics: Sequence[str] = SHOWN


def run(name: str, claim: Claim, work: Path) -> None:
    """Train, measure, and write ``results/claims/NAME.json``, ``.png`` and its tables. Goes on where it was stopped."""
    output = work / name
    fresh, started = not output.exists(), time.monotonic()
    vpo(work, "compare", *claim.arguments, "--output", name)
    minutes = {"minutes": round((time.monotonic() - started) / 60, 1)} if fresh else {}
    board = json.loads((output / "results.json").read_text(encoding="utf-8"))
    found = {
        "command": shlex.join(["vpo", "compare", *claim.arguments]),
        "contrasts": [_contrast(output, board, *pair, claim.metrics) for pair in claim.contrasts],
        **minutes,  # of a comparison that was not interrupted
        **board,
    }
    facts.write(f"claims/{name}", found)
    plots.board(board, claim.metrics, facts.RESULTS / "claims" / f"{name}.png")
    page.board(name, found, claim.metrics)


def _contrast(output: Path, board: dict[str, Any], one: str, other: str, metrics: Sequence[str]) -> dict[str, Any]:
    """`one` minus `other`, with the board's kind of interval."""
    first, second = ([_after(output, row, seed) for seed in board["seeds"]] for row in (one, other))
    return {"one": one, "other": other, **changes(second, first, metrics)}


def changes(before: Sequence[Results], after: Sequence[Results], metrics: Sequence[str]) -> dict[str, Any]:
    """How the metrics change between evaluations of the same noises, one on each side for each seed of training."""
    assert len({tuple(one.prompts) for one in [*before, *after]}) == 1
    found = {}
    for metric in metrics:
        old, new = (np.array([one.metrics[metric] for one in side]) for side in (before, after))
        change = pooling.pooled([0.0] * old.shape[1], (new - old).tolist(), before[0].groups)
        found[metric] = {
            "difference": change.difference, "low": change.low, "high": change.high, "p": change.p,
            "by_seed": (new - old).mean(1).tolist(),
        }  # fmt: skip
    return found


def _after(output: Path, name: str, seed: int) -> Results:
    claim, _, row = name.rpartition("/")
    folder = (output.parent / claim if claim else output) / "runs" / f"{Row(row, '', {}).folder}-{seed}" / "samples"
    return Results.load(max(folder.glob("step-*")))
