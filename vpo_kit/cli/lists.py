"""`vpo methods`, `vpo rewards`, `vpo metrics`, `vpo models` and `vpo config`."""

from __future__ import annotations

from typing import Annotated

import typer

from vpo_kit.cli.options import app


@app.command()
def methods(name: Annotated[str | None, typer.Argument(help="one method: its needs and settings")] = None) -> None:
    """List the training methods, or show one with all of its settings."""
    if name is None:
        from vpo_kit.commands import lists

        lists.methods()
    else:
        from vpo_kit.commands import parts

        parts.method(name)


@app.command()
def rewards(name: Annotated[str | None, typer.Argument(help="one reward: weights, licence, settings")] = None) -> None:
    """List the rewards, or show one with its weights, its licence and all of its settings."""
    if name is None:
        from vpo_kit.commands import lists

        lists.rewards()
    else:
        from vpo_kit.commands import parts

        parts.reward(name)


@app.command()
def metrics() -> None:
    """List what can be measured beside rewards, and what each metric needs."""
    from vpo_kit.commands import lists

    lists.metrics()


@app.command()
def models() -> None:
    """List the embedded models and the supported pipeline classes."""
    from vpo_kit.commands import lists

    lists.models()


@app.command()
def config(
    search: Annotated[str | None, typer.Argument(help="a field's name or part of it, or a word of its meaning")] = None,
) -> None:
    """Print the fields of a recipe, or those that a word finds, with values, default and meaning."""
    from vpo_kit.commands import lists

    lists.settings(search)
