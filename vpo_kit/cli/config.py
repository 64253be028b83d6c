"""`vpo config`: the fields of a recipe, those of the methods and rewards too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from vpo_kit import catalogue
from vpo_kit.cli.listing import show
from vpo_kit.cli.options import app
from vpo_kit.errors import ConfigError

if TYPE_CHECKING:
    from vpo_kit.catalogue import Setting


@app.command()
def config(
    search: Annotated[str | None, typer.Argument(help="a field's name or part of it, or a word of its meaning")] = None,
) -> None:
    """Print the fields of a recipe, or those that a word finds, with values, default and meaning."""
    from vpo_kit import fields
    from vpo_kit.registry import nearest

    found = _every()
    chosen = fields.find(list(found), search) if search else list(found)
    if not chosen:
        leaves = {one.name.rpartition(".")[2] for one in found}
        raise ConfigError(f"no field of a recipe speaks of {search!r}{nearest(search or '', leaves)}")
    for one in chosen:
        show(one, found[one])


def _every() -> Mapping[Setting, list[str]]:
    """All fields of a recipe, each with the methods or rewards that have it; nothing for those of every run."""
    from vpo_kit import fields
    from vpo_kit.config import Run

    found: dict[Setting, list[str]] = {one: [] for one in fields.of(Run)}
    for name, method in catalogue.methods().items():
        for one in method.settings:
            found.setdefault(one, []).append(name)
    for name, reward in catalogue.rewards().items():
        for one in reward.settings:
            found.setdefault(one, []).append(name)
    return found
