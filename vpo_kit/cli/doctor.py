"""`vpo doctor`: what is here, and what of it is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.cli.options import app


@app.command()
def doctor(
    run: Annotated[bool, typer.Option("--run", help="also train the embedded model for two steps")] = False,
) -> None:
    """Versions, devices, codecs, extras, disks, Hub, each with what is wrong; exit code 1 where a part is broken."""
    from vpo_kit.library.doctor import look

    broken = []
    for one in look(Path.cwd(), run):
        print(f"{one.name:<20} {one.seen}", flush=True)
        broken += [] if one.ok else [one]
    for one in broken:
        print(f"broken: {one.name}: {one.seen}")
    raise typer.Exit(int(bool(broken)))
