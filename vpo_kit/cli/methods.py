"""`vpo methods`: the training methods, or all that one of them says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vpo_kit import catalogue
from vpo_kit.cli.listing import show, show_plugins
from vpo_kit.cli.options import app

if TYPE_CHECKING:
    from vpo_kit.catalogue import MethodFacts

REWARDS_OF = {"none": "", "any": "a reward", "differentiable": "a differentiable reward"}


@app.command()
def methods(name: Annotated[str | None, typer.Argument(help="one method: its needs and settings")] = None) -> None:
    """List the training methods, or show one with all of its settings."""
    if name is None:
        _show_all()
    else:
        _show_one(name)


def _show_all() -> None:
    """Print the methods by what they need: the built-in ones from the catalogue, of others name and package."""
    from vpo_kit.registry import METHODS

    groups: dict[str, list[str]] = {}
    for name, facts in catalogue.methods().items():
        groups.setdefault(_needs(facts), []).append(f"{name:10}  {facts.summary}")
    for heading, lines in groups.items():
        print(f"from {heading}:", *lines, "", sep="\n")
    show_plugins(METHODS)
    print("vpo methods NAME: what a method needs, and every setting of it")


def _show_one(name: str) -> None:
    """Print what a method does and needs, and its settings. Raises `ConfigError`."""
    from vpo_kit.library.lists import method_facts
    from vpo_kit.registry import METHODS

    facts = method_facts(METHODS.load(name))
    print(f"{name}: {facts.summary}\nlearns from {_needs(facts)}\n")
    for one in facts.settings:
        show(one)


def _needs(facts: MethodFacts) -> str:
    """What a method learns from, in words."""
    names = {"pairs": f"{facts.strategy} pairs" if facts.strategy else "pairs", "videos": "real clips"}
    data = " or ".join(names.get(kind, kind) for kind in facts.data)
    return ", ".join(filter(None, [data, REWARDS_OF[facts.reward]]))
