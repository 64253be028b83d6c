"""`vpo runs` and `vpo watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.cli.options import app


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="where they are, also in folders of their own")] = Path("runs"),
) -> None:
    """List runs: method, step, reward, gain, and whether they go on."""
    from vpo_kit.commands import runs as command

    command.show(folder)


@app.command()
def watch(run: Annotated[Path, typer.Argument(help="a run folder")]) -> None:
    """Follow a run: a line for each step until it ends."""
    from vpo_kit.commands import runs as command

    command.watch(run)
