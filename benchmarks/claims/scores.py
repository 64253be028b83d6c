"""What a board measured, clip by clip, committed beside its result: a claim that sets rows of two boards against each
other is decided wherever one of them was run, and boards can be run on several machines or days.

``results/claims/scores/BOARD.json`` holds the base's own measurement, that of its candidates, and for each row one
for each seed of training, all of the same prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks import facts
from vpo_kit import files
from vpo_kit.comparison.plan import Row
from vpo_kit.evaluation.samples import Results, finished

METRICS = ("gold", "vqa", "flawed", "motion", "speed", "warp_error", "text_accuracy")
"""What is kept of a clip, where it was measured."""
DIGITS = 5
BASE = "base"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A board's measurements."""

    base: Results
    candidates: Results | None
    rows: Mapping[str, Sequence[Results]]

    def of(self, row: str, seeds: int) -> list[Results]:
        """Those of a row; the base's is the same for every seed."""
        return [self.base] * seeds if row == BASE else list(self.rows[row][:seeds])

    @classmethod
    def measured(cls, folder: Path, rows: Sequence[str], seeds: int) -> Self:
        """Those of the folder of a `vpo compare`."""
        run = {
            row: [folder / "runs" / f"{Row(row, '', {}).folder}-{s}" / "samples" for s in range(seeds)] for row in rows
        }
        best = [finished(path / "samples" / "step-000000") for path in sorted(folder.glob("base/*-best-of-*"))]
        first = next(iter(run.values()))[0]
        return cls(
            base=Results.load(first / "step-000000"),
            candidates=best[0] if best else None,
            rows={row: [Results.load(max(path.glob("step-*"))) for path in paths] for row, paths in run.items()},
        )

    def keep(self, name: str) -> None:
        """Write them as the result `name`."""
        told: dict[str, Any] = {
            "prompts": self.base.prompts,
            "groups": self.base.groups,
            "base": _rounded(self.base),
            "candidates": {"groups": self.candidates.groups, **_rounded(self.candidates)} if self.candidates else None,
            "rows": {row: [_rounded(one) for one in found] for row, found in self.rows.items()},
        }
        files.write(_file(name), json.dumps({**facts.facts(), **told}) + "\n")

    @classmethod
    def kept(cls, name: str) -> Self:
        """Those of a board that was run elsewhere. Raises `SystemExit` where there are none."""
        if not _file(name).is_file():
            raise SystemExit(f"the board {name} has not been run: python -m benchmarks.claims {name}")
        told = json.loads(_file(name).read_text(encoding="utf-8"))

        def results(metrics: dict[str, Any]) -> Results:
            own = dict(metrics)
            groups = own.pop("groups", told["groups"])
            names = [f"{place}.mp4" for place in range(len(groups))]
            return Results(name=name, prompts=told["prompts"], groups=groups, files=names, metrics=own)

        return cls(
            base=results(told["base"]),
            candidates=results(told["candidates"]) if told["candidates"] else None,
            rows={row: [results(one) for one in found] for row, found in told["rows"].items()},
        )


def _file(name: str) -> Path:
    return facts.RESULTS / "claims" / "scores" / f"{name}.json"


def _rounded(found: Results) -> dict[str, list[float]]:
    return {
        name: [float(f"{value:.{DIGITS}g}") for value in found.metrics[name]]
        for name in METRICS
        if name in found.metrics
    }
