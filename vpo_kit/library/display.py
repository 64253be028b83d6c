"""What the terminal shows: progress where someone looks, tables, nothing that a log file would choke on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from vpo_kit.evaluation import tables
from vpo_kit.evaluation.metrics import about, verdict
from vpo_kit.evaluation.statistics import LEVEL, Paired
from vpo_kit.library.heartbeat import Heartbeat, Pace, clock

SHOWN = {"reward_mean": "reward", "implicit_accuracy": "accuracy", "motion": "motion", "loss": "loss"}


def terminal(*, quiet: bool = False) -> Console:
    """What a command speaks to. Prompts, names and paths hold brackets and colons: nothing is taken for markup or for
    the name of a picture, in tables neither.
    """
    return Console(quiet=quiet, markup=False, emoji=False)


class _Left(ProgressColumn):
    """The time left, by a pace."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        left = self._pace.left
        return Text("-:--" if left is None else clock(left), style="progress.remaining")


class TrainingBar:
    """Step, reward, accuracy, motion and time left; without a terminal a plain line for every tenth of the run, and at
    least every half minute.

    `total` steps at most; of a run that ends at another limit before it says how many steps that will be, by the share
    of its budget that the steps so far have spent.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._most, self._total, self._state = console, total, total, ""
        self._pace = Pace(total)
        self._progress = Progress(
            TextColumn("train"),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            _Left(self._pace),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("train", total=total, state="")
        self._beat = Heartbeat(self._say, self._line)

    def __enter__(self) -> TrainingBar:
        self._progress.__enter__()
        if not self._console.is_terminal:
            self._beat.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._console.is_terminal:
            self._beat.__exit__(kind, error, trace)
        self._progress.__exit__(kind, error, trace)

    def step(self, row: Mapping[str, float], spent: float) -> None:
        """A step is done, and with it the share `spent` of the run's budget, what earlier processes did included."""
        number = int(row["step"])
        if not self._pace.done:
            self._pace.start_at(number - 1)
        self._pace.reach(number)
        self._total = max(number, round(number / spent))
        self._pace.expect(self._total)
        self._state = "  ".join(f"{label} {row[key]:.3g}" for key, label in SHOWN.items() if key in row)
        self._progress.update(self._task, completed=self._pace.done, total=self._total, state=self._state)
        if not self._console.is_terminal and self._pace.done % max(1, self._total // 10) == 0:
            self._beat.spoke()
            self._say(self._line())

    def notice(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def _line(self) -> str:
        about = "" if self._total == self._most else "about "
        return f"step {self._pace.done}/{about}{self._total}  {self._state}  ({self._pace.words()})".replace(
            "    ", "  "
        )

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False)


@contextmanager
def count_bar(console: Console, name: str, total: int | None, unit: str = "") -> Iterator[Callable[[int], None]]:
    """A bar that counts to `total`, or without an end; without a terminal a plain line every half minute."""
    pace = Pace(total)
    if console.is_terminal:
        label = TextColumn("{task.description:6}", markup=False)
        columns = (label, BarColumn(20), MofNCompleteColumn(), TextColumn(unit), _Left(pace))
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(name, total=total)

            def advance(count: int) -> None:
                pace.reach(pace.done + count)
                progress.advance(task, count)

            yield advance
        return

    def line() -> str:
        counted = f"{pace.done}/{total}" if total is not None else f"{pace.done}"
        return f"{name}: {counted} {unit}".rstrip() + f" ({pace.words()})"

    with Heartbeat(lambda text: console.print(text, soft_wrap=True, highlight=False), line):
        yield lambda count: pace.reach(pace.done + count)


@contextmanager
def working(console: Console, what: str) -> Iterator[None]:
    """Something that has no count: a sign on a terminal, elsewhere a plain line every half minute."""
    if console.is_terminal:
        with console.status(Text(what)):
            yield
        return
    pace = Pace(None)
    with Heartbeat(
        lambda text: console.print(text, soft_wrap=True, highlight=False),
        lambda: f"{what} ({pace.words()})",
    ):
        yield


@contextmanager
def look_through_bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Progress of what takes long the first time only: nothing, until it is called; then a bar, or without a terminal
    lines.
    """
    with ExitStack() as held:
        ticks: list[Callable[[int], None]] = []
        before = 0

        def show(done: int, total: int) -> None:
            nonlocal before
            if not ticks:
                ticks.append(held.enter_context(count_bar(console, "looked through", total, "clips")))
            ticks[0](done - before)
            before = done

        yield show


def print_changes(console: Console, changes: Mapping[str, Paired], before: str, after: str) -> None:
    """The table of metrics, at most 80 columns wide: means, paired difference with its 95% interval, wins, p.

    Where figures have too many digits for that, wins give way and then the means: a figure that is cut is a wrong one.
    """
    heads = (before[:8], after[:8], "change [95%]", "wins", "p")
    unbound = console.options.update(max_width=1000)
    for kept in ((0, 1, 2, 3, 4), (0, 1, 2, 4), (2, 4)):
        table = _changes(changes, heads, kept)
        if console.measure(table, options=unbound).maximum <= console.width:
            break
    count = next(iter(changes.values())).count
    table.title = f"{before} against {after}: held-out prompts, same seeds, {count} videos each"
    console.print(table)
    count = sum(change.changed for change in changes.values())
    console.print(
        f"p: sign-flip test over prompts, Holm's correction for the {count} metrics in which anything changed; * is "
        f"below {LEVEL}. Lower is better where it says so; motion and speed have no better.",
        style="dim",
    )


def _changes(changes: Mapping[str, Paired], heads: Sequence[str], kept: Sequence[int]) -> Table:
    """A row for each metric, with the figures under the `heads` that are kept."""
    table = Table(title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("metric", no_wrap=True)
    for place in kept:
        table.add_column(heads[place], justify="right", no_wrap=True)
    for name, change in changes.items():
        note = " (lower)" if about(name).direction == "lower" else ""
        style = {"better": "green", "worse": "red", "changed": "blue", "unclear": ""}[verdict(name, change)]
        figures = (
            *tables.values(change),
            Text(tables.span(change), style=style),
            tables.share(change.win_rate),
            Text(tables.chance(change), style=style),
        )
        table.add_row(name + note, *(figures[place] for place in kept))
    return table
