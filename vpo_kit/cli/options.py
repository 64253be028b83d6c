"""The application, and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpo_kit import __version__

app = typer.Typer(
    name="vpo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Align text-to-video diffusion models to preferences.",
)

Model = Annotated[
    str | None, typer.Option(help="sprites, a diffusers pipeline folder or a hub id", show_default="sprites")
]
Config = Annotated[Path | None, typer.Option("--config", help="YAML recipe")]
PairSet = Annotated[Path, typer.Argument(help="a pair set", metavar="SET")]
Set = Annotated[list[str] | None, typer.Option("--set", help="any field of the recipe: section.field=value")]
Prompts = Annotated[Path | None, typer.Option(help="text file, one prompt a line", show_default="the model's own")]
Seed = Annotated[int | None, typer.Option(min=0, help="seed", show_default="0")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vpo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
