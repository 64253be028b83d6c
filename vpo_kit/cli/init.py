"""`vpo init`: a ready recipe for a published model, to begin with and to change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.cli.options import app


@app.command()
def init(
    family: Annotated[str | None, typer.Argument(help="a family, as in the list that vpo init alone prints")] = None,
    method: Annotated[str, typer.Option(help="the training method")] = "online",
    memory: Annotated[str, typer.Option(help="the card's memory, as 24GB")] = "24GB",
    output: Annotated[Path, typer.Option(help="the file to write")] = Path("recipe.yaml"),
) -> None:
    """Write a ready recipe for a published model: sizes that fit, published rates, judges, each with its source."""
    from vpo_kit import files
    from vpo_kit.errors import OutputError
    from vpo_kit.recipes import shelf
    from vpo_kit.recipes.cards import num_bytes

    if family is None:
        print(*(f"vpo init {one}" for one in shelf.ready()), sep="\n")
        return
    found = shelf.find(family, method, num_bytes(memory) / 1e9)
    if output.exists():
        raise OutputError(f"{output} is there already: give another --output")
    files.write(output, found.path.read_bytes())
    print(f"{output}: {found}")
    print(f"next: vpo plan --config {output} --memory {found.gigabytes}GB")
