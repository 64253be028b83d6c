"""The leaderboard: what each row gained against the base, with motion beside it, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vpo_kit.comparison import pooling
from vpo_kit.comparison.outcome import Machine, Outcome
from vpo_kit.evaluation import people, report
from vpo_kit.evaluation.best_of import Equal
from vpo_kit.evaluation.metrics import about, ordered
from vpo_kit.evaluation.people import ByRow, PeopleSay
from vpo_kit.evaluation.samples import Results
from vpo_kit.evaluation.statistics import Paired


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row with its runs. `changes` are over all runs that were measured, also those that a health check stopped:
    what they leave behind is what the method gave. `labels` are those in the data of one run; `samples` are the videos
    that are sampled for each one that is kept, and `equal` says how many of the base's that would take to be as good;
    `people` is what people said in a study, by dimension; `regressed` are changes of what the base has candidates of.
    """

    name: str
    method: str
    labels: int
    settings: Mapping[str, Any]
    outcomes: Sequence[Outcome]
    changes: Mapping[str, Paired]
    samples: int = 1
    equal: Equal | None = None
    people: Mapping[str, PeopleSay] = field(default_factory=dict)
    regressed: Mapping[str, Paired] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        """Whether anything was trained: False for what the base gives by itself."""
        return self.samples == 1

    @property
    def measured(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.after is not None]

    @property
    def before(self) -> Results | None:
        """The base of this row's runs."""
        return next((outcome.before for outcome in self.measured), None)

    @property
    def passes(self) -> float | None:
        """The mean over measured runs."""
        return _mean([outcome.passes for outcome in self.measured])

    @property
    def machine(self) -> Machine:
        """Mean seconds, and the highest memory of any run."""
        found = [outcome.machine for outcome in self.measured]
        seconds = _mean([machine.seconds for machine in found if machine.seconds is not None])
        memory = [machine.peak_memory_mb for machine in found if machine.peak_memory_mb is not None]
        complete = all(machine.seconds_complete for machine in found)
        return Machine(None if seconds is None else round(seconds, 1), complete, max(memory) if memory else None)

    @property
    def reasons(self) -> list[str]:
        """One sentence for each run that is not done."""
        wrong = [outcome for outcome in self.outcomes if outcome.status != "done"]
        return [f"seed {o.seed} {o.status}{f': {o.reason}' if o.reason else ''}" for o in wrong]

    @property
    def notes(self) -> list[str]:
        """The reasons, and a sentence for each health check that warned, with what it said of the first seed."""
        warned: dict[str, list[tuple[int, str]]] = {}
        for outcome in self.outcomes:
            for check, message in outcome.warnings.items():
                warned.setdefault(check, []).append((outcome.seed, message))
        found = list(self.reasons)
        for check, told in warned.items():
            seeds = ", ".join(str(seed) for seed, _ in told)
            found.append(f"seed{'s' if len(told) > 1 else ''} {seeds}, {check}: {told[0][1]}")
        return found


@dataclass(frozen=True)
class Board:
    """All rows, the best first by `rank_by`; `facts` (model, budget, seeds, ...) are the same for all of them."""

    lines: Sequence[Line]
    rank_by: str | None
    facts: Mapping[str, Any]
    licences: Mapping[str, str]

    @property
    def metrics(self) -> list[str]:
        return ordered(dict.fromkeys(key for row in self.lines for key in row.changes))

    @property
    def quality(self) -> list[str]:
        """What motion is shown beside: the judges."""
        return [name for name in self.metrics if about(name).group == "judges"]

    @property
    def headline(self) -> list[str]:
        """The judges, and motion right beside them."""
        return [name for name in self.metrics if about(name).group in ("judges", "motion")]

    @property
    def people(self) -> list[str]:
        """The dimensions in which people judged some row."""
        return people.dimensions(row.people for row in self.lines)

    @property
    def said(self) -> ByRow:
        """What people said of each row."""
        return {row.name: row.people for row in self.lines}

    @property
    def names(self) -> list[str]:
        """The rows, in their order."""
        return [row.name for row in self.lines]

    @property
    def details(self) -> list[str]:
        """All other metrics."""
        return [name for name in self.metrics if name not in self.headline]

    @property
    def seeds(self) -> list[int]:
        """The seeds of all runs that were measured."""
        return sorted({outcome.seed for row in self.lines if row.trained for outcome in row.measured})


def line(name: str, method: str, labels: int, settings: Mapping[str, Any], outcomes: Sequence[Outcome]) -> Line:
    """Raises `DataError` where runs were evaluated on different prompts."""
    after = [outcome.after for outcome in outcomes if outcome.after is not None]
    before = next((outcome.before for outcome in outcomes if outcome.before is not None), None)
    changes = pooling.changes(before, after) if before and after else {}
    return Line(name=name, method=method, labels=labels, settings=settings, outcomes=outcomes, changes=changes)


def ranked(lines: Sequence[Line], rank_by: str | None) -> list[Line]:
    """The rows by the change of one metric, the best first; rows without it last, in their own order."""
    sign = -1 if rank_by and about(rank_by).direction == "lower" else 1

    def key(row: Line) -> float:
        found = row.changes.get(rank_by or "")
        return float("inf") if found is None else -sign * found.difference

    return sorted(lines, key=key)


def results(board: Board) -> dict[str, Any]:
    """``results.json``: apart from what is called ``machine``, the same however often it is made."""
    rows = [
        {
            "name": row.name,
            "method": row.method,
            "labels": row.labels,
            "passes": row.passes,
            "samples": row.samples,
            "equals_best_of": row.equal.facts() if row.equal else None,
            "machine": asdict(row.machine),
            "changes": _changes(row),
            **({"people": {name: asdict(said) for name, said in row.people.items()}} if row.people else {}),
            "runs": [_run(o) for o in row.outcomes],
            "settings": dict(row.settings),
        }
        for row in board.lines
    ]
    return {**board.facts, "ranked_by": board.rank_by, "licences": dict(board.licences), "rows": rows}


def _changes(row: Line) -> dict[str, Any]:
    """The changes as plain numbers, with those of each seed."""
    found: dict[str, Any] = report.rows(row.changes)
    if row.before is not None:
        seeds = pooling.by_seed(row.before, {o.seed: o.after for o in row.measured if o.after})
        found = {name: {**change, "by_seed": seeds[name]} for name, change in found.items()}
    for name, change in row.regressed.items():
        found[name]["regressed"] = change.interval()
    return found


def _run(outcome: Outcome) -> dict[str, Any]:
    return {
        "seed": outcome.seed,
        "status": outcome.status,
        "reason": outcome.reason,
        "warnings": dict(outcome.warnings),
        "steps": outcome.steps,
        "passes": outcome.passes,
        "machine": asdict(outcome.machine),
        "after": outcome.after.table() if outcome.after else {},
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
