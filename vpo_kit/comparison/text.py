"""The board's numbers as text, and the table in Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vpo_kit.comparison.board import Board, Line
from vpo_kit.evaluation import people, tables
from vpo_kit.evaluation.metrics import about
from vpo_kit.evaluation.statistics import LEVEL, Paired

COSTS = ("runs", "passes", "seconds", "memory", "labels", "samples")
ARROWS = {"higher": "↑", "lower": "↓", "neutral": "–"}


def label(name: str) -> str:
    """A row's name as it is shown: most of what is swept is the method's own, so that much is not said."""
    return name.replace(" method.", " ")


def costs(row: Line) -> list[str]:
    """The columns `COSTS`; seconds with ≥ where those of a killed process could not be counted."""
    machine, passes = row.machine, row.passes
    done = sum(outcome.status == "done" for outcome in row.outcomes)
    return [
        f"{done}/{len(row.outcomes)}" if row.trained else "",
        "" if passes is None else f"{passes:,.0f}",
        "" if machine.seconds is None else f"{'' if machine.seconds_complete else '≥'}{machine.seconds:,.0f}",
        "" if machine.peak_memory_mb is None else f"{machine.peak_memory_mb:,} MB",
        f"{row.labels:,}",
        f"{row.samples}",
    ]


def number(cost: str) -> str:
    """The number that a cost of `costs` begins with, to sort it by; nothing where there is none."""
    found = re.match(r"[\d.]+", cost.replace(",", "").lstrip("≥"))
    return found[0] if found else ""


def equal(row: Line) -> str:
    """The number of samples of the base that do as well, ``3.1 [2.0, 4.4]``, or nothing."""
    return "" if row.equal is None else str(row.equal)


def said(row: Line, dimension: str) -> str:
    """The share of wins over the base that people gave a row, ``62% [55%, 70%]*``, or ``none``."""
    return str(row.people[dimension]) if dimension in row.people else people.NONE


def cell(change: Paired | None) -> str:
    """The change of a metric, ``+0.12 [+0.03, +0.21]*``, or nothing."""
    return "" if change is None else tables.span(change) + ("*" if change.significant else "")


def bases(board: Board) -> dict[str, Line]:
    """What the rows are set against, by its name, each with a row that has it: one base, but for rows that start from
    a LoRA of their own.
    """
    found: dict[str, Line] = {}
    for row in board.lines:
        if row.before is not None and all(row.before != known.before for known in found.values()):
            found[f"base of {label(row.name)}" if found else "base"] = row
    return found


def caption(board: Board) -> str:
    """What the numbers are."""
    count = max((len(row.measured) for row in board.lines), default=0)
    how = "over prompts (drawn anew) and seeds of training (Student's t)"
    if count < 2:
        how = "over prompts alone (one seed says nothing about the next)"
    return (
        f"Means, and the change against the base on the same held-out prompts and noises, with its 95% interval {how}; "
        f"* p below {LEVEL}, with Holm's correction for the metrics of a row."
        + (f" Rows are in the order of {board.rank_by}." if board.rank_by else "")
        + (f" {people.CAPTION}" if board.people else "")
        + (EQUAL_CAPTION.format(board.rank_by) if any(row.equal for row in board.lines) else "")
    )


EQUAL_CAPTION = (
    " Equals: so many samples of the base, of which the reward keeps the best, are as good by {} as one sample of the "
    "trained model; best of n itself is the expectation over all choices of n."
)
COST_CAPTION = (
    "Runs: how many ended as planned. Passes: videos through the network in training. Seconds: loading, training and "
    "measuring afterwards. Memory: peak of the process, not of a GPU. Labels: labelled segments in the data. "
    "Samples: videos made for each that is kept. Passes and seconds are means over runs."
)


def grid(board: Board, arrows: Mapping[str, str]) -> list[list[str]]:
    """The head, the bases' means, and for each row its means with their changes, then its cost; nothing is escaped."""
    names = board.metrics
    head = ["method", *(f"{name} {arrows[about(name).direction]}" for name in names)]
    head += [*(f"people: {name}" for name in board.people), "equals best of", *COSTS]
    before = [
        [name, *(tables.values(row.changes[key])[0] if key in row.changes else "" for key in names)]
        for name, row in bases(board).items()
    ]
    rows = [
        [
            label(row.name),
            *(_whole(row.changes.get(name)) for name in names),
            *(said(row, name) for name in board.people),
            equal(row),
            *costs(row),
        ]
        for row in board.lines
    ]
    return [head, *(row + [""] * (len(head) - len(row)) for row in before), *rows]


def _whole(change: Paired | None) -> str:
    """``0.63 (+0.12 [+0.03, +0.21])*``, or nothing."""
    return "" if change is None else tables.whole(change)


def markdown(board: Board) -> str:
    """One row a method, one column a metric, then the cost; names are escaped, arrows say which way is better."""
    first, *rest = grid(board, ARROWS)
    head = [tables.markdown_text(cell) for cell in first]
    # of figures only what would begin a tag: brackets are easier to read as they are
    rows = [[tables.markdown_text(row[0]), *(re.sub("([<>])", r"\\\1", cell) for cell in row[1:])] for row in rest]
    lines = [f"| {' | '.join(cells)} |" for cells in [head, ["---", *["---:"] * (len(head) - 1)], *rows]]
    escape = tables.markdown_text
    notes = [f"- {escape(row.name)}, {escape(note)}" for row in board.lines for note in row.notes]
    said = people.markdown(board.said, board.names)
    return "\n".join([*lines, "", *said, *notes, *([""] if notes else []), caption(board), COST_CAPTION, ""])
