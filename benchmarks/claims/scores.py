"""What a board measured, clip by clip, committed beside its result: a claim that sets rows of two boards against each
other is decided wherever one of them was run, and boards can be run on several machines or days.

``results/claims/scores/BOARD.json`` holds the base's own measurement and for each row those of the runs that have
ended, by their seeds, all of the same prompts; ``candidates.json`` beside them many samples of the base for each
prompt, which say how lucky a noise of a board was, measured once for all boards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks import facts
from vpo_kit import content, files
from vpo_kit.comparison.outcome import ENDED
from vpo_kit.comparison.plan import Row
from vpo_kit.evaluation.samples import Results

METRICS = ("gold", "vqa", "flawed", "motion", "speed", "warp_error", "text_accuracy")
"""What is kept of a clip, where it was measured."""
DIGITS = 5
BASE, CANDIDATES = "base", "candidates"
MODEL = "sprites"
"""The model whose candidates are known."""


class WaitingError(Exception):
    """What a claim is of has not been measured, in a line that says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A board's measurements."""

    base: Results
    rows: Mapping[str, Mapping[int, Results]]
    settings: Mapping[str, str] = field(default_factory=dict)
    """A key of each row's settings; older files have none."""

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
        if not (folder / "results.json").is_file():
            raise WaitingError(f"the board {folder.name} has not been run there")
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
        return cls(
            base=Results.load(first / "step-000000"),
            settings={row["name"]: content.key(row["settings"]) for row in told["rows"] if row["name"] in ended},
            rows={
                row: {seed: Results.load(max(path.glob("step-*"))) for seed, path in paths.items()}
                for row, paths in ended.items()
            },
        )

    def is_alike(self, other: Scores) -> bool:
        """Whether both measured the base on the same prompts and noises by the same judges: to a hundredth of a
        metric's spread, as machines round differently.
        """
        one, two = self.base, other.base
        return one.prompts == two.prompts and one.groups == two.groups and all(
            float(np.abs(np.subtract(values, two.metrics[name])).mean()) <= 0.01 * float(np.std(values)) + 1e-9
            for name, values in one.metrics.items()
            if name in two.metrics
        )  # fmt: skip

    def keep(self, name: str) -> None:
        """Write them as the result `name`. Runs that are kept and not among these stay, where the base is alike and the
        row has the settings that it had: a folder that was begun anew takes nothing away from a board that has ended,
        and runs of an earlier recipe do not stand in for one that failed.
        """
        if _file(name).is_file() and self.is_alike(before := Scores.kept(name)):
            changed = {row for row in self.rows if before.settings.get(row, "") not in ("", self.settings.get(row))}
            old = {row: found for row, found in before.rows.items() if row not in changed}
            rows = {row: {**old.get(row, {}), **found} for row, found in self.rows.items()}
            return replace(self, rows=old | rows, settings={**before.settings, **self.settings})._write(name)
        return self._write(name)

    def _write(self, name: str) -> None:
        told: dict[str, Any] = {
            "prompts": self.base.prompts,
            "groups": self.base.groups,
            "settings": dict(self.settings),
            "base": _rounded(self.base),
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
            return _results(name, told["prompts"], told["groups"], metrics)

        return cls(
            base=results(told["base"]),
            settings=told.get("settings", {}),
            rows={row: {int(s): results(one) for s, one in found.items()} for row, found in told["rows"].items()},
        )


def keep_candidates(prompts: list[str], groups: list[int], metrics: dict[str, Any]) -> None:
    """Write many samples of the base for each prompt; `groups` says of which prompt each one is."""
    found = _results(CANDIDATES, prompts, groups, metrics)
    told = {"prompts": prompts, "groups": groups, "metrics": _rounded(found)}
    files.write(_file(CANDIDATES), json.dumps({**facts.facts(), **told}) + "\n")


def candidates() -> Results:
    """Many samples of the base for each prompt. Raises `WaitingError` where they have not been measured."""
    if not _file(CANDIDATES).is_file():
        raise WaitingError("the base's candidates have not been measured: python -m benchmarks.claims judges")
    told = json.loads(_file(CANDIDATES).read_text(encoding="utf-8"))
    return _results(CANDIDATES, told["prompts"], told["groups"], told["metrics"])


def _results(name: str, prompts: list[str], groups: list[int], metrics: dict[str, Any]) -> Results:
    names = [f"{place}.mp4" for place in range(len(groups))]
    return Results(name=name, prompts=prompts, groups=groups, files=names, metrics=metrics)


def _file(name: str) -> Path:
    return facts.RESULTS / "claims" / "scores" / f"{name}.json"


def _rounded(found: Results) -> dict[str, list[float]]:
    return {
        name: [float(f"{value:.{DIGITS}g}") for value in found.metrics[name]]
        for name in METRICS
        if name in found.metrics
    }
