"""What `vpo compare` shows: how far a run is, and the board in 80 columns."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vpo_kit.comparison import outcome, runner, text
from vpo_kit.comparison.board import Board
from vpo_kit.comparison.runner import Planned
from vpo_kit.evaluation import people, tables
from vpo_kit.evaluation.metrics import verdict
from vpo_kit.evaluation.people import ByRow
from vpo_kit.evaluation.statistics import Paired
from vpo_kit.library.display import count_bar

STYLES = {"better": "green", "worse": "red", "changed": "blue", "unclear": ""}


def notice(console: Console, line: str) -> None:
    """One line as it stands."""
    console.print(line, soft_wrap=True, highlight=False)


def train(console: Console, one: Planned, lock: int) -> None:
    """Train a run whose turn it is, with a bar on a terminal, and say how it ended."""
    passes = one.run.max_passes
    total = None if one.run.max_seconds else passes or one.run.steps
    with count_bar(console, one.path.name, total, "passes" if passes else "steps") as tick:
        log, done = Logged(one.path / "metrics.jsonl"), 0

        def watch() -> None:
            nonlocal done
            log.read_on()
            now = round(log.passes) if passes else log.steps
            if now > done:
                tick(now - done)
                done = now

        runner.train(one, lock, watch)
    found = outcome.read(one)
    seconds = "" if found.machine.seconds is None else f" in {found.machine.seconds:.0f} s"
    notice(console, f"{one.path.name}: {found.status}{seconds}{f': {found.reason}' if found.reason else ''}")


def show(console: Console, board: Board) -> None:
    """Print for each judge a table with motion beside it, the cost, and why runs are missing.

    Where one of them does not fit, the judges stand alone and motion has one table of its own.
    """
    judges = board.quality or [metric for metric in board.metrics if metric != "motion"][:1]
    gains = [_gains(board, name, "motion") for name in judges]
    # the whole width, measured without a bound: within the console's own a table never seems wider than it
    unbound = console.options.update(max_width=1000)
    if any(console.measure(table, options=unbound).maximum > console.width for table in gains):
        gains = [_gains(board, name) for name in (*judges, "motion")]
    for table in gains:
        console.print(table, "")
    show_people(console, board.said, board.names)
    if equals := [row for row in board.lines if row.equal]:
        table = empty_table(f"by {board.rank_by}, as good as the base's best of [95%]", ("", "samples"))
        for row in equals:
            table.add_row(Text(text.label(row.name)), text.equal(row))
        console.print(table, "")
    table = empty_table("cost of a run", ("", *text.COSTS))
    for row in board.lines:
        table.add_row(Text(text.label(row.name)), *text.costs(row))
    console.print(table, "")
    for line in [f"{row.name}, {note}" for row in board.lines for note in row.notes]:
        notice(console, line)
    console.print(f"{text.caption(board)} {text.COST_CAPTION}", style="dim", highlight=False)


def show_people(console: Console, said: ByRow, rows: Collection[str]) -> None:
    """Print what people said of each row, one table a dimension; nothing where nobody was asked."""
    found = people.cells(said, rows)
    for dimension in people.dimensions(said.get(row, {}) for row in rows):
        table = empty_table(f"{dimension}, by people [95%]", ("", *people.HEAD[2:]))
        for row, name, *cells in found:
            if name == dimension:
                table.add_row(Text(text.label(row)), *cells)
        console.print(table, "")
    for line in people.strangers(said, rows):
        notice(console, line)


def _gains(board: Board, name: str, beside: str | None = None) -> Table:
    """Means and changes of one metric, with the changes of another one beside them."""
    before = [tables.values(row.changes[name])[0] for row in text.bases(board).values() if name in row.changes]
    title = f"{name}, base {' and '.join(before)}, change against it [95%]" if before else name
    table = empty_table(title, ("", "mean", name, "wins", *([beside] if beside else [])))
    for row in board.lines:
        change = row.changes.get(name)
        means = [tables.values(change)[1], _cell(name, change), tables.share(change.win_rate)] if change else [""] * 3
        table.add_row(Text(text.label(row.name)), *means, *([_cell(beside, row.changes.get(beside))] if beside else []))
    return table


def empty_table(title: str, columns: Sequence[str]) -> Table:
    """A table with its head, of names and then figures, that fits 80 columns where its figures do."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for i, column in enumerate(columns):
        # names give way first: numbers that are cut would be wrong ones
        table.add_column(
            column, justify="right" if i else "left", no_wrap=i > 0, overflow="fold", min_width=10 * (not i)
        )
    return table


def _cell(name: str, change: Paired | None) -> Text:
    return Text(text.cell(change), style=STYLES[verdict(name, change)] if change else "")


class Logged:
    """Steps and passes that a run has logged, read on from where they were read last: a look is taken every moment, and
    a log grows.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._inode, self._read = path, 0, 0
        self.steps, self.passes = 0, 0.0

    def read_on(self) -> None:
        """Take up the lines that are new; a last one may be half written."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:  # a run that goes on writes a new one, of the steps that its checkpoint holds
                self._inode, self._read, self.steps, self.passes = inode, 0, 0, 0.0
            file.seek(self._read)
            lines = file.read().split(b"\n")[:-1]
        rows = [json.loads(line) for line in lines]
        self._read += sum(len(line) + 1 for line in lines)
        self.steps += len(rows)
        self.passes += sum(row["passes"] for row in rows)
