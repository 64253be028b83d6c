"""What the lists share: fields and parts of other packages, as lines for a terminal of 80 columns. No torch here."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vpo_kit.catalogue import Setting
    from vpo_kit.registry import Registry

WIDTH = 80


def show(one: Setting, owners: list[str] | None = None) -> None:
    """Print one field: its name, values and default in a line, its meaning below."""
    print(f"{one.name} = {one.default}  ({one.values})")
    meaning = one.meaning + (f" [{', '.join(owners)}]" if owners else "")
    print(fill(meaning, WIDTH, initial_indent="    ", subsequent_indent="    "))


def show_plugins(registry: Registry) -> None:
    """Print the parts that come from other packages. Raises `ConfigError` where two parts have one name."""
    registry.targets()
    for name, package in registry.packages().items():
        print(cut(f"{name}  {registry.kind} of the package {package}"))


def cut(line: str) -> str:
    """The line, shortened to the terminal's width."""
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


def yes(value: bool) -> str:
    """A fact as a word of a table."""
    return "yes" if value else "no"
