"""A board as CSV for programs, and as LaTeX for a paper."""

from __future__ import annotations

from typing import Any

from vpo_kit import plain
from vpo_kit.comparison import text
from vpo_kit.comparison.board import Board, Line
from vpo_kit.evaluation import people, tables
from vpo_kit.evaluation.metrics import about
from vpo_kit.evaluation.people import PeopleSay
from vpo_kit.evaluation.statistics import Paired

COLUMNS = (
    "row", "method", "metric", "better", "unit", "base", "mean", "change", "low", "high", "p", "corrected_p", "wins",
    "wins_low", "wins_high", "verdicts", "raters", "alpha", "study",
    "regressed_change", "regressed_low", "regressed_high",
    "runs_measured", "runs", "passes", "seconds", "peak_memory_mb", "labels", "samples", "equals_best_of",
)  # fmt: skip


def table(board: Board) -> str:
    """One line for each row and metric, with all digits, means and changes over all measured runs; the cost of a run
    is in each of its lines. A row without a measurement has one line without a metric. What people said is a metric of
    its own, whose change is the log odds; a row that they did not judge has no verdicts there.
    """
    rows: list[dict[str, Any]] = []
    for row in board.lines:
        for name, change in row.changes.items() or [("", None)]:
            rows.append({**_cost(row), **(_change(name, change) if change else {}), **_regressed(row, name)})
        rows += [{**_cost(row), **_people(name, row.people.get(name))} for name in board.people]
    return plain.csv_text(COLUMNS, rows)


def _cost(row: Line) -> dict[str, Any]:
    return {
        "row": row.name,
        "method": row.method,
        "runs_measured": len(row.measured),
        "runs": len(row.outcomes),
        "passes": row.passes,
        "seconds": row.machine.seconds,
        "peak_memory_mb": row.machine.peak_memory_mb,
        "labels": row.labels,
        "samples": row.samples,
        "equals_best_of": row.equal,
    }


def _change(name: str, change: Paired) -> dict[str, Any]:
    return {
        "metric": name,
        "better": about(name).direction,
        "unit": about(name).unit,
        "base": change.before,
        "mean": change.after,
        "change": change.difference,
        "low": change.low,
        "high": change.high,
        "p": change.p,
        "corrected_p": change.adjusted,
        "wins": change.win_rate,
        "wins_low": change.win_low,
        "wins_high": change.win_high,
    }


def _people(dimension: str, said: PeopleSay | None) -> dict[str, Any]:
    kind = {"metric": f"people: {dimension}", "better": "higher", "unit": "log odds"}
    if said is None:
        return {**kind, "verdicts": 0, "raters": 0}
    return {
        **kind,
        "change": said.log_odds,
        "low": said.log_odds_low,
        "high": said.log_odds_high,
        "wins": said.win_rate,
        "wins_low": said.low,
        "wins_high": said.high,
        "verdicts": said.verdicts,
        "raters": said.raters,
        "alpha": said.alpha,
        "study": said.study,
    }


def _regressed(row: Line, name: str) -> dict[str, float]:
    found = row.regressed.get(name)
    return {} if found is None else {f"regressed_{key}": value for key, value in found.interval().items()}


def latex(board: Board) -> str:
    """The table of `text.markdown` with booktabs: one row a method, one column a metric, then the cost."""
    head, *rows = text.grid(board, tables.LATEX_ARROWS)
    lines = [
        *tables.booktabs(f"l{'r' * (len(head) - 1)}", head, rows),
        *people.latex(board.said, board.names),
        *(f"% {tables.latex_text(f'{row.name}, {note}')}" for row in board.lines for note in row.notes),
        f"% {tables.latex_text(text.caption(board))}",
        f"% {tables.latex_text(text.COST_CAPTION)}",
        "",
    ]
    return "\n".join(lines)
