"""What the built-in parts say of themselves, without importing them: ``catalogue.json`` beside this file, which
``make lists`` writes from their classes and a test holds up to date. No torch here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True)
class Setting:
    """One field by its whole name, ``optimiser.lr``; `values` and `default` in words."""

    name: str
    values: str
    default: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """A method's summary, what it learns from (the preferred kind first), its reward's kind, and its own settings."""

    summary: str
    data: tuple[str, ...]
    reward: str
    strategy: str | None
    settings: tuple[Setting, ...] = field(repr=False, default=())


@dataclass(frozen=True, kw_only=True)
class RewardFacts:
    """What a reward's spec says that a list shows, and its own settings."""

    training: bool
    gradient: bool
    segments: bool
    in_groups: bool
    prompt: bool
    ships: bool
    licence: str
    scale: str
    settings: tuple[Setting, ...] = field(repr=False, default=())


@dataclass(frozen=True, kw_only=True)
class MetricFacts:
    """A metric's part of a table, which way is better, its unit, what it is, and what it needs beside the pixels."""

    group: str
    direction: str
    unit: str
    about: str
    needs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a pipeline class is for: published models, what a video is made from, whether some have two experts, and
    whether ComfyUI's names of its layers are known.
    """

    published: str
    inputs: tuple[str, ...]
    experts: bool
    comfyui: bool


def methods() -> dict[str, MethodFacts]:
    """The built-in methods by name."""
    return {name: MethodFacts(**_plain(facts)) for name, facts in _read()["methods"].items()}


def rewards() -> dict[str, RewardFacts]:
    """The built-in rewards by name."""
    return {name: RewardFacts(**_plain(facts)) for name, facts in _read()["rewards"].items()}


def metrics() -> dict[str, MetricFacts]:
    """The built-in metrics by name, in the order of a table."""
    return {
        name: MetricFacts(**{**facts, "needs": tuple(facts["needs"])}) for name, facts in _read()["metrics"].items()
    }


def models() -> dict[str, ModelFacts]:
    """The supported pipeline classes."""
    return {
        name: ModelFacts(**{**facts, "inputs": tuple(facts["inputs"])}) for name, facts in _read()["models"].items()
    }


def learning_from(kind: str, *, only: str | None = None, apart: str | None = None) -> str:
    """The built-in methods that can learn from ``prompts``, ``pairs`` or ``videos``, for a help text; `only` those
    whose pairs are made by one strategy, or those `apart` from it.
    """
    return ", ".join(
        name
        for name, facts in _read()["methods"].items()
        if kind in facts["data"]
        and (only is None or facts["strategy"] == only)
        and (apart is None or facts["strategy"] != apart)
    )


def preferring() -> str:
    """The built-in methods that learn which video of a pair is the better one, for a help text: those for whose pairs
    there is a strategy.
    """
    names = [name for name, facts in _read()["methods"].items() if facts["strategy"] is not None]
    return f"{', '.join(names[:-1])} or {names[-1]}"


@cache
def _read() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    settings = tuple(Setting(**one) for one in facts["settings"])
    return {**facts, "settings": settings} | ({"data": tuple(facts["data"])} if "data" in facts else {})
