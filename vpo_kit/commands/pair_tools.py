"""`vpo pair inspect`, `check`, `export`, `merge` and `split`: look after finished sets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vpo_kit import files
from vpo_kit.errors import ConfigError, DataError, OutputError
from vpo_kit.library.display import count_bar
from vpo_kit.pairing import arrange, check, export, page, store
from vpo_kit.pairing.inspect import summarise
from vpo_kit.pairing.set_tables import Grid, grids
from vpo_kit.pairing.store import PairSet


def inspect(path: Path, place: Path | None, limit: int) -> None:
    """Print a set's numbers and write its page. Raises `DataError` for a set without a readable pair."""
    found = _read(path)
    place = place or path / "inspect.html"
    if place.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--page {place}: the page is an .html file")
    summary = summarise(found.pairs)
    console = Console()
    for grid in grids(found, summary):
        _print(console, grid)
    files.write(place, page.render(found, summary, place, limit))
    console.print(f"page: {place}", soft_wrap=True, markup=False, highlight=False)


def check_set(path: Path, decode: bool) -> None:
    """Name everything that is wrong with a set, one line each. Raises `DataError` at the end when anything is."""
    found = store.read(path)
    console = Console()
    with _progress(console, "check", [found]) as tick:
        checked = check.pairs(found, decode=decode, tick=tick)
    strays = check.strays(found)
    for line in [*checked.wrong, *strays]:
        console.print(" ".join(line.split()), soft_wrap=True, markup=False, highlight=False)
    total = len(found.pairs) + len(found.broken)
    if not total:
        raise DataError(f"{path} holds no pairs")
    if checked.wrong or strays:
        raise DataError(
            f"{path}: {len(checked.wrong)} of {total} pairs are wrong, files that belong to no pair: {len(strays)}"
        )
    console.print(
        f"{path}: {len(found.pairs)} pairs, nothing wrong; latents {check.shape_text(checked.shape)}", soft_wrap=True
    )


def export_set(path: Path, output: Path, kind: str, push_to: str | None = None) -> None:
    """Write prompt, chosen, rejected as JSON lines (``trl``), two paths and a verdict (``csv``), or a folder for the
    Hub (``hub``), which goes there only where `push_to` names a repository. Raises `DataError` for nothing
    to write.
    """
    if push_to is not None and kind != "hub":
        raise ConfigError("--push-to-hub goes with --format hub")
    found = _read(path)
    if output.exists():
        raise OutputError(f"{output} exists: give another --output")
    console = Console()
    if kind != "trl":
        _export_table(found, output, kind, console)
        if push_to is not None:
            console.print(f"pushed: {export.push(output, push_to)}", soft_wrap=True, highlight=False)
        return
    made = export.trl(found)
    for line in [*found.broken, *made.missing]:
        console.print(f"left out: {line}", soft_wrap=True, markup=False, highlight=False)
    if not made.rows:
        raise DataError(
            f"{path}: no pair has a whole-clip winner ({made.ties} ties, {made.unlabelled} without a label)"
        )
    files.write(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made.rows))
    left_out = f"{made.ties} ties and {made.unlabelled} pairs without a label left out"
    console.print(f"{output}: {len(made.rows)} pairs; {left_out}", soft_wrap=True)


def _export_table(found: PairSet, output: Path, kind: str, console: Console) -> None:
    made = export.table(found, output.parent)
    for line in [*found.broken, *made.missing]:
        console.print(f"left out: {line}", soft_wrap=True, markup=False, highlight=False)
    if not made.rows:
        raise DataError(f"{found.path}: none of its {len(found.pairs)} pairs has a label")
    if kind == "hub":
        export.hub(found, output)
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(made.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(made.rows)
        files.write(output, text.getvalue())
    left_out = f"{made.unlabelled} pairs without a label left out"
    console.print(f"{output}: {len(made.rows)} pairs; {left_out}", soft_wrap=True)


def merge(paths: Sequence[Path], output: Path) -> None:
    """One set of several. Raises `VpoError` when they do not fit together."""
    sets = [_read(path) for path in paths]
    console = Console()
    with _progress(console, "check", sets) as tick:
        merged = arrange.merge(sets, output, tick)
    console.print(f"{output}: {len(merged.pairs)} pairs of {len(sets)} sets", soft_wrap=True)


def split(path: Path, share: float, seed: int, output: Path) -> None:
    """A training and a held-out set with no prompt in common. Raises `VpoError`."""
    found = _read(path)
    console = Console()
    with _progress(console, "check", [found]) as tick:
        sides = arrange.split(found, share, seed, output, tick, partial(console.print, soft_wrap=True))
    for side in sides:
        prompts = len({pair.prompt for pair in side.pairs})
        console.print(f"{side.path}: {len(side.pairs)} pairs of {prompts} prompts", soft_wrap=True)


def _read(path: Path) -> PairSet:
    found = store.read(path)
    if not found.pairs:
        raise DataError(f"{path} holds no readable pair{f': {found.broken[0]}' if found.broken else ''}")
    return found


@contextmanager
def _progress(console: Console, name: str, sets: Sequence[PairSet]) -> Iterator[Callable[[], None]]:
    with count_bar(console, name, sum(len(found.pairs) for found in sets)) as tick:
        yield lambda: tick(1)


def _print(console: Console, grid: Grid) -> None:
    table = Table(title=grid.title, title_justify="left", box=box.SIMPLE_HEAD, show_header=bool(grid.columns))
    for i in range(len(grid.rows[0])):
        name = grid.columns[i] if grid.columns and i else ""
        table.add_column(name, justify="left" if i in grid.left else "right", overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    if grid.note:
        console.print(f"  {grid.note}", markup=False, highlight=False)
    console.print()
