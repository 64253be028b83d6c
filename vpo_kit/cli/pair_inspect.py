"""`vpo pair inspect`: a set in numbers, and a page of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpo_kit.cli.options import PairSet
from vpo_kit.cli.pair import pair_app
from vpo_kit.cli.pair_sets import readable
from vpo_kit.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from vpo_kit.pairing.set_tables import Grid


@pair_app.command("inspect")
def pair_inspect(
    path: PairSet,
    page: Annotated[Path | None, typer.Option(help="the HTML page", show_default="SET/inspect.html")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="pairs on the page, evenly spread over the set", show_default="all")
    ] = None,
) -> None:
    """Labels, margins, motion and duplicates in numbers, and a page with the videos."""
    from vpo_kit import files
    from vpo_kit.library.display import terminal
    from vpo_kit.pages.templates import Head, command, today
    from vpo_kit.pairing import page as pages
    from vpo_kit.pairing.inspect import summarise
    from vpo_kit.pairing.set_tables import grids

    found = readable(path)
    place = page or path / "inspect.html"
    if place.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--page {place}: the page is an .html file")
    summary = summarise(found.pairs)
    console = terminal()
    for grid in grids(found, summary):
        _print(console, grid)
    files.write(place, pages.render(found, summary, place, limit, Head(date=today(), command=command())))
    console.print(f"page: {place}", soft_wrap=True, highlight=False)


def _print(console: Console, grid: Grid) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=grid.title, title_justify="left", box=box.SIMPLE_HEAD, show_header=bool(grid.columns))
    for i in range(len(grid.rows[0])):
        name = grid.columns[i] if grid.columns and i else ""
        table.add_column(name, justify="left" if i in grid.left else "right", overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    if grid.note:
        console.print(f"  {grid.note}", highlight=False)
    console.print()
