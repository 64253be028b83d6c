"""Templates of pages: they extend ``base.html.j2``, and whatever they are given is escaped."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2


@dataclass(frozen=True, kw_only=True)
class Head:
    """What stands above all else: one sentence of result, and when, how long and by what command it was made. What is
    empty is not shown.
    """

    said: str = ""
    date: str = ""
    duration: str = ""
    command: str = ""
    health: str = ""

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Names and values of what is known, in their order."""
        names = (("health checks", self.health), ("date", self.date), ("duration", self.duration))
        return [(name, value) for name, value in (*names, ("command", self.command)) if value]


def today() -> str:
    """This minute, as pages show it: ``2026-01-31 12:00``."""
    return f"{datetime.now():%Y-%m-%d %H:%M}"


def command(words: Sequence[str] | None = None) -> str:
    """The command line of this process where it is one of `vpo`, ready to be pasted; nothing from Python."""
    first, *rest = sys.argv if words is None else words
    called = Path(first)
    if called.name != "vpo" and called.parts[-2:] != ("vpo_kit", "__main__.py"):
        return ""
    return shlex.join(["vpo", *rest])


def environment(*packages: str) -> jinja2.Environment:
    """The templates of `packages`, which may extend and include those of this one; all they are given is escaped."""
    places = dict.fromkeys((*packages, __package__))
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(name, ".") for name in places])
    found = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    found.policies["json.dumps_function"] = _json
    return found


def _json(value: Any, **options: Any) -> str:
    """The value as browsers read it: they take no NaN, which becomes nothing."""
    return json.dumps(_finite(value), **options, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
