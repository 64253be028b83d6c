"""`vpo pair merge`: one set of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.cli.pair import pair_app
from vpo_kit.cli.pair_sets import checking, readable


@pair_app.command("merge")
def pair_merge(
    sets: Annotated[list[Path], typer.Argument(help="pair sets of one model", metavar="SET...")],
    output: Annotated[Path, typer.Option(help="folder of the new set")],
) -> None:
    """Make one set of several; the old ones stay."""
    from vpo_kit.library.display import terminal
    from vpo_kit.pairing import arrange

    found = [readable(path) for path in sets]
    console = terminal()
    with checking(console, found) as tick:
        merged = arrange.merge(found, output, tick)
    console.print(f"{output}: {len(merged.pairs)} pairs of {len(found)} sets", soft_wrap=True)
