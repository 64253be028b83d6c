"""What a board measured, clip by clip, committed beside its result: a claim that sets rows of two boards against each
other is decided wherever one of them was run, and boards can be run on several machines or days.

``results/claims/scores/BOARD.json`` holds the base's own measurement, that of its candidates, and for each row those of
the runs that have ended, by their seeds, all of the same prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
ENDED = ("done", "stopped")


class WaitingError(Exception):
    """What a claim is of has not been measured, in a line that says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A board's measurements."""

    base: Results
    candidates: Results | None
    rows: Mapping[str, Mapping[int, Results]]

    def of(self, row: str, seeds: int) -> list[Results]:
        """Those of a row with the first `seeds` seeds; the base's is the same for every seed. Raises `WaitingError`."""
        if row == BASE:
            return [self.base] * seeds
        found = self.rows.get(row, {})
        if missing := [seed for seed in range(seeds) if seed not in found]:
            raise WaitingError(f"{row}, seed {missing[0]}, has not ended")
        return [found[seed] for seed in range(seeds)]

    @classmethod
    def measured(cls, folder: Path) -> Self:
        """Those of the folder of a `vpo compare`: what is trained, without the base's best of several, and of that the
        runs that have ended. One that failed or goes on has the base's measurement as its newest.

        Raises `WaitingError` where none has.
        """
        told = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        ended = {
            row["name"]: {
                int(run["seed"]): folder / "runs" / f"{Row(row['name'], '', {}).folder}-{run['seed']}" / "samples"
                for run in row["runs"]
                if run["status"] in ENDED
            }
            for row in told["rows"]
            if row["samples"] == 1
        }
        first = next((path for paths in ended.values() for path in paths.values()), None)
        if first is None:
            raise WaitingError(f"no run of {folder.name} has ended")
        best = [finished(path / "samples" / "step-000000") for path in sorted(folder.glob("base/*-best-of-*"))]
        return cls(
            base=Results.load(first / "step-000000"),
            candidates=best[0] if best else None,
            rows={
                row: {seed: Results.load(max(path.glob("step-*"))) for seed, path in paths.items()}
                for row, paths in ended.items()
            },
        )

    def keep(self, name: str) -> None:
        """Write them as the result `name`."""
        told: dict[str, Any] = {
            "prompts": self.base.prompts,
            "groups": self.base.groups,
            "base": _rounded(self.base),
            "candidates": {"groups": self.candidates.groups, **_rounded(self.candidates)} if self.candidates else None,
            "rows": {row: {str(s): _rounded(one) for s, one in found.items()} for row, found in self.rows.items()},
        }
        files.write(_file(name), json.dumps({**facts.facts(), **told}) + "\n")

    @classmethod
    def kept(cls, name: str) -> Self:
        """Those of a board that was run elsewhere. Raises `WaitingError` where there are none."""
        if not _file(name).is_file():
            raise WaitingError(f"the board {name} has not been run: python -m benchmarks.claims {name}")
        told = json.loads(_file(name).read_text(encoding="utf-8"))

        def results(metrics: dict[str, Any]) -> Results:
            own = dict(metrics)
            groups = own.pop("groups", told["groups"])
            names = [f"{place}.mp4" for place in range(len(groups))]
            return Results(name=name, prompts=told["prompts"], groups=groups, files=names, metrics=own)

        return cls(
            base=results(told["base"]),
            candidates=results(told["candidates"]) if told["candidates"] else None,
            rows={row: {int(s): results(one) for s, one in found.items()} for row, found in told["rows"].items()},
        )


def _file(name: str) -> Path:
    return facts.RESULTS / "claims" / "scores" / f"{name}.json"


def _rounded(found: Results) -> dict[str, list[float]]:
    return {
        name: [float(f"{value:.{DIGITS}g}") for value in found.metrics[name]]
        for name in METRICS
        if name in found.metrics
    }
