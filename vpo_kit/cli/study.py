"""`vpo study`: people judge the rows of a board or an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.cli.options import app, leave_out


@app.command()
def study(
    source: Annotated[Path, typer.Argument(help="folder of vpo compare or vpo eval")],
    output: Annotated[Path, typer.Option(help="the study, a pair set; the same command goes on with it")],
    rows: Annotated[list[str] | None, typer.Option(help="a row beside the base", show_default="all")] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="how many are shown", show_default="all there are")] = None,
    dimension: Annotated[
        list[str] | None, typer.Option(help="what is asked", show_default="quality, motion, text")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(min=1, help="people for each pair", show_default="all who come")
    ] = None,
    instructions: Annotated[Path | None, typer.Option(help="a text for the page", show_default="ours")] = None,
    gold: Annotated[Path | None, typer.Option(help="JSON lines of id, dimension, label: known answers")] = None,
    least_gold: Annotated[float, typer.Option(min=0, max=1, help="who has fewer of them right does not count")] = 0.0,
    without: Annotated[list[str] | None, typer.Option(help="a rater who does not count")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of pairs, order and sides")] = 0,
    host: Annotated[
        str | None, typer.Option(help="address of the page, not encrypted", show_default="127.0.0.1")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes a free one", show_default="8001")] = None,
    finish: Annotated[bool, typer.Option("--finish", help="say what people said, ask nobody")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show how many raters it takes, and stop")] = False,
) -> None:
    """People judge the rows of a board or evaluation, blind, two at a time."""
    asking = {"overlap": overlap, "instructions": instructions, "gold": gold, "host": host, "port": port}
    if finish:
        leave_out("vpo study: --finish asks nobody", asking)
    from vpo_kit.library import study as command
    from vpo_kit.library.display import terminal

    request = command.StudyRequest(
        source=source,
        output=output,
        rows=rows or (),
        pairs=pairs,
        seed=seed,
        dimensions=dimension or command.DIMENSIONS,
        without=without or (),
        least_gold=least_gold,
        asking={name: value for name, value in {**asking, "finish": finish or None}.items() if value is not None},
    )
    act = command.plan if dry_run else command.run
    act(request, terminal())
