"""What `vpo compare` shows: how far a run is, and the board in 80 columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vpo_kit.comparison import outcome, runner, text
from vpo_kit.comparison.board import Board
from vpo_kit.comparison.runner import Planned
from vpo_kit.evaluation import tables
from vpo_kit.evaluation.metrics import verdict
from vpo_kit.evaluation.statistics import Paired
from vpo_kit.library.display import count_bar

STYLES = {"better": "green", "worse": "red", "changed": "blue", "unclear": ""}


def notice(console: Console, line: str) -> None:
    """One line as it stands."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def train(console: Console, one: Planned) -> None:
    """Train a run that is not finished, with a bar on a terminal, and say how it ended."""
    if one.finished():
        return
    passes = one.run.max_passes
    total = None if one.run.max_seconds else passes or one.run.steps
    with count_bar(console, one.path.name, total, "passes" if passes else "steps") as tick:
        done = 0

        def watch() -> None:
            nonlocal done
            now = _progress(one.path / "metrics.jsonl", passes is not None)
            if now > done:
                tick(now - done)
                done = now

        runner.train(one, lambda line: notice(console, line), watch)
    found = outcome.read(one)
    seconds = "" if found.machine.seconds is None else f" in {found.machine.seconds:.0f} s"
    notice(console, f"{one.path.name}: {found.status}{seconds}{f': {found.reason}' if found.reason else ''}")


def show(console: Console, board: Board) -> None:
    """Print for each judge a table with motion beside it, the cost, and why runs are missing."""
    for name in board.quality or [metric for metric in board.metrics if metric != "motion"][:1]:
        table = _table(f"{name}, change against the base [95%]", ("", name, "wins", "motion"))
        for row in board.lines:
            shown = [row.changes.get(key) for key in (name, "motion")]
            cells = [_cell(key, change) for key, change in zip((name, "motion"), shown, strict=True)]
            wins = tables.share(shown[0].win_rate) if shown[0] else ""
            table.add_row(Text(text.label(row.name)), cells[0], wins, cells[1])
        console.print(table, "")
    if equals := [row for row in board.lines if row.equal]:
        table = _table(f"by {board.rank_by}, as good as the base's best of [95%]", ("", "samples"))
        for row in equals:
            table.add_row(Text(text.label(row.name)), text.equal(row))
        console.print(table, "")
    table = _table("cost of a run", ("", *text.COSTS))
    for row in board.lines:
        table.add_row(Text(text.label(row.name)), *text.costs(row))
    console.print(table, "")
    for line in [f"{row.name}, {reason}" for row in board.lines for reason in row.reasons]:
        notice(console, line)
    console.print(f"{text.caption(board)} {text.COST_CAPTION}", style="dim", highlight=False)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for i, column in enumerate(columns):
        # names give way first: numbers that are cut would be wrong ones
        table.add_column(
            column, justify="right" if i else "left", no_wrap=i > 0, overflow="fold", min_width=10 * (not i)
        )
    return table


def _cell(name: str, change: Paired | None) -> Text:
    return Text(text.cell(change), style=STYLES[verdict(name, change)] if change else "")


def _progress(log: Path, count_passes: bool) -> int:
    """Steps or passes that a run has logged; a last line may be half written."""
    lines = log.read_text(encoding="utf-8").split("\n")[:-1] if log.is_file() else []
    return round(sum(json.loads(line)["passes"] for line in lines)) if count_passes else len(lines)
