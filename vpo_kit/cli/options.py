"""The application, and the options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vpo_kit import __version__
from vpo_kit.errors import ConfigError

app = typer.Typer(
    name="vpo",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Align text-to-video diffusion models to preferences.",
)

Model = Annotated[
    str | None, typer.Option(help="sprites, duets, a diffusers pipeline folder or a hub id", show_default="sprites")
]
Config = Annotated[Path | None, typer.Option("--config", help="YAML recipe")]
PairSet = Annotated[Path, typer.Argument(help="a pair set", metavar="SET")]
Set = Annotated[list[str] | None, typer.Option("--set", help="any field of the recipe: section.field=value")]
Prompts = Annotated[
    Path | None,
    typer.Option(
        help="text file, one a line, or FILE.csv:COLUMN; csv and jsonl may name images", show_default="the model's own"
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="seed", show_default="0")]

Columns = Annotated[
    list[str] | None, typer.Option("--column", help="a column's name, prompt=caption; for a table of other names")
]
Words = Annotated[list[str] | None, typer.Option("--word", help="a set's own words, tie=equal,both")]
Separator = Annotated[str | None, typer.Option(help="between the columns of a text table", show_default="detected")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vpo {__version__}")
        raise typer.Exit


def named(option: str, given: list[str] | None) -> dict[str, str]:
    """``["a=b"]`` to ``{"a": "b"}``. Raises `ConfigError`."""
    parts = [text.partition("=") for text in given or ()]
    for name, equals, value in parts:
        if not (name.strip() and equals and value.strip()):
            raise ConfigError(f"{option} {name}{equals}{value}: write it as NAME=VALUE")
    return {name.strip(): value.strip() for name, _, value in parts}


def of_reward(assignments: list[str] | None) -> dict[str, Any]:
    """What ``--set reward.NAME=VALUE`` gives, by name. Raises `ConfigError` for a field of another section."""
    from vpo_kit.config import read_assignments

    values = read_assignments(assignments or [])
    found: dict[str, Any] = values.pop("reward", {})
    if values:
        raise ConfigError(f"--set: only reward.* can be set here, not {min(values)}")
    return found


def of_call(assignments: list[str] | None, function: Callable[..., Any]) -> dict[str, Any]:
    """What ``--set`` gives to the settings of `function`, whose other arguments the command has options for. Raises
    `ConfigError` for one of these.
    """
    from inspect import signature

    from vpo_kit.config import read_assignments

    values = read_assignments(assignments or [])
    for name in signature(function).parameters:
        if name in values:
            raise ConfigError(f"--set {name}: no setting of this command, whose --help has an option in its place")
    return values


def leave_out(why: str, options: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for options that are given and would have no effect."""
    if names := [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]:
        raise ConfigError(f"{why}: leave {', '.join(names)} out")


def of_run(init_lora: Path | None, **options: Any) -> dict[str, Any]:
    """The options of `vpo train` and `vpo plan` as fields of a recipe."""
    return {**options, "lora": {"init": init_lora} if init_lora else None}


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
