"""What a method costs in code: its own file, and the files that it shares with other methods."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

from vpo_kit.methods.base import Method
from vpo_kit.registry import METHODS


def files(name: str) -> list[Path]:
    """The files of a method's class and of the classes it is derived from, its own first, the interface left out."""
    kinds = [kind for kind in METHODS.load(name).__mro__ if issubclass(kind, Method) and kind is not Method]
    return list(dict.fromkeys(Path(inspect.getfile(kind)) for kind in kinds))


def table(names: Sequence[str]) -> str:
    """As Markdown: a row for each method, the shortest first."""
    sizes = {name: [(path.name, _lines(path)) for path in files(name)] for name in names}
    lines = ["| method | its own file | base classes that others share |", "|---|---|---|"]
    for name, (own, *shared) in sorted(sizes.items(), key=lambda one: one[1][0][1]):
        told = ", ".join(f"{file} {count}" for file, count in shared)
        lines.append(f"| {name} | {own[0]} {own[1]} | {told} |")
    return "\n".join(lines) + "\n"


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())
