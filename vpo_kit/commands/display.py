"""What the terminal shows: progress where someone looks, tables, nothing that a log file would choke on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vpo_kit.evaluation.evaluate import LOWER_IS_BETTER
from vpo_kit.evaluation.statistics import Paired

SHOWN = {"reward_mean": "reward", "implicit_accuracy": "accuracy", "motion": "motion", "loss": "loss"}


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
def count_bar(console: Console, name: str, total: int, unit: str = "") -> Iterator[Callable[[int], None]]:
    """A bar that counts to `total`, shown on a terminal only."""
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


def print_changes(console: Console, changes: Mapping[str, Paired], before: str, after: str) -> None:
    """The table of metrics: means, paired difference with its 95% interval, win rate."""
    count = next(iter(changes.values())).count
    table = Table(title=f"held-out prompts, same seeds, {count} videos each", title_justify="left")
    table.add_column("metric", no_wrap=True)
    for column in (before, after, "change [95%]", "wins"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, change in changes.items():
        better = (change.difference < 0) == (name in LOWER_IS_BETTER)
        style = "" if not change.significant or name in ("motion", "speed") else "green" if better else "red"
        span = f"{change.difference:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
        table.add_row(
            name, f"{change.before:.3f}", f"{change.after:.3f}", Text(span, style=style),
            f"{change.win_rate:.0%}",
        )  # fmt: skip
    console.print(table)
