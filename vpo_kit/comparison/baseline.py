"""The base's best of n as rows of a board: what a person would do instead of training, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vpo_kit.comparison import board, regressed
from vpo_kit.comparison.board import Line
from vpo_kit.comparison.outcome import Machine, Outcome
from vpo_kit.comparison.regressed import Luck
from vpo_kit.evaluation import best_of
from vpo_kit.evaluation.metrics import about
from vpo_kit.evaluation.samples import Results
from vpo_kit.evaluation.statistics import Paired

REGRESSED = ("judges", "motion")
"""Groups of metrics whose changes are regressed."""


def lines(
    base: Results, candidates: Results, rewards: Mapping[str, Sequence[float]], folder: Path, seed: int
) -> list[Line]:
    """A row for each reward and n; `rewards` holds each one's score of every candidate."""
    found = []
    most = len(candidates.groups) // max(1, len(candidates.prompts))
    for reward, scores in rewards.items():
        for n in best_of.counts(most):
            name = f"best of {n} by {reward}"
            after = best_of.picked(base, candidates, scores, n, name)
            outcome = Outcome(
                seed=seed,
                folder=folder,
                status="done",
                reason="",
                steps=0,
                passes=0,
                machine=Machine(None, True, None),
                before=base,
                after=after,
            )
            found.append(replace(board.line(name, "best of n", 0, {}, [outcome]), samples=n))
    return found


def with_regressed(rows: Sequence[Line], base: Results, candidates: Results) -> list[Line]:
    """The rows with the changes of judges and motion regressed on the score of this base, where it is theirs."""
    names = [name for name in base.metrics if name in candidates.metrics and about(name).group in REGRESSED]
    luck = {name: Luck.of(base, candidates, name) for name in names}
    return [replace(row, regressed=_regressed(row, luck)) if row.before == base else row for row in rows]


def _regressed(row: Line, luck: Mapping[str, Luck]) -> dict[str, Paired]:
    after = [outcome.after for outcome in row.measured if outcome.after is not None]
    return {
        name: regressed.change([one.metrics[name] for one in after], own, after[0].groups)
        for name, own in luck.items()
        if name in row.changes
    }


def with_equals(
    rows: Sequence[Line], base: Results, candidates: Results, scores: Sequence[float], metric: str | None
) -> list[Line]:
    """The rows with the number of this base's samples whose best by `scores` is as good by `metric`, where it is
    theirs.
    """
    if metric is None or metric not in candidates.metrics:
        return list(rows)
    expected = best_of.curve(candidates, scores, metric)
    found = []
    for row in rows:
        known = [outcome.after for outcome in row.measured if outcome.after is not None]
        after = best_of.by_prompt(known, metric) if row.trained and known and row.before == base else None
        found.append(row if after is None else replace(row, equal=best_of.equal(expected, after)))
    return found
