"""What the terminal shows: progress where someone looks, tables, nothing that a log file would choke on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vpo_kit.evaluation import tables
from vpo_kit.evaluation.metrics import about, verdict
from vpo_kit.evaluation.statistics import LEVEL, Paired

SHOWN = {"reward_mean": "reward", "implicit_accuracy": "accuracy", "motion": "motion", "loss": "loss"}
QUIET_S = 10
"""Seconds after which a log file gets another line."""


class TrainingBar:
    """Step, reward, accuracy, motion and time left; without a terminal, one plain line for every tenth of the run."""

    def __init__(self, console: Console, total: int) -> None:
        self.done = 0
        self._console = console
        self._total = total
        self._progress = Progress(
            TextColumn("train"), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(compact=True), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("train", total=total, state="")

    def __enter__(self) -> TrainingBar:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def step(self, row: Mapping[str, float]) -> None:
        self.done = int(row["step"])
        state = "  ".join(f"{label} {row[key]:.3g}" for key, label in SHOWN.items() if key in row)
        self._progress.update(self._task, completed=self.done, state=state)
        if not self._console.is_terminal and self.done % max(1, self._total // 10) == 0:
            self._console.print(f"step {self.done}/{self._total}  {state}", soft_wrap=True)

    def notice(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)


@contextmanager
def count_bar(console: Console, name: str, total: int | None, unit: str = "") -> Iterator[Callable[[int], None]]:
    """A bar that counts to `total`, or without an end, shown on a terminal only."""
    columns = (
        TextColumn(f"{name:6}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def look_through_bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """For what takes long the first time only: nothing, until it is called; then a bar, or without a terminal a line
    every ten seconds.
    """
    with ExitStack() as held:
        ticks: list[Callable[[int], None]] = []
        before, spoke = 0, time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal before, spoke
            if not ticks:
                ticks.append(held.enter_context(count_bar(console, "looked through", total, "clips")))
            ticks[0](done - before)
            before = done
            if not console.is_terminal and time.monotonic() - spoke > QUIET_S:
                spoke = time.monotonic()
                console.print(f"{done} of {total} clips looked through", soft_wrap=True)

        yield show


def print_changes(console: Console, changes: Mapping[str, Paired], before: str, after: str) -> None:
    """The table of metrics, at most 80 columns wide: means, paired difference with its 95% interval, wins, p."""
    title = f"{before} against {after}: held-out prompts, same seeds, {next(iter(changes.values())).count} videos each"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("metric", no_wrap=True)
    for column in (before[:8], after[:8], "change [95%]", "wins", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, change in changes.items():
        note = " (lower)" if about(name).direction == "lower" else ""
        style = {"better": "green", "worse": "red", "changed": "blue", "unclear": ""}[verdict(name, change)]
        table.add_row(
            name + note, *tables.values(change), Text(tables.span(change), style=style),
            tables.share(change.win_rate), Text(tables.chance(change), style=style),
        )  # fmt: skip
    console.print(table)
    count = sum(change.changed for change in changes.values())
    console.print(
        f"p: sign-flip test over prompts, Holm's correction for the {count} metrics in which anything changed; * is "
        f"below {LEVEL}. Lower is better where it says so; motion and speed have no better.", style="dim",
    )  # fmt: skip
