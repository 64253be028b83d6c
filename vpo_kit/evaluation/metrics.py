"""What the numbers of a table are: the facts of every metric there is, their order, and what a change means.

Motion stands right below the judges in every table: a gain of quality beside a loss of motion is no gain.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Literal

from vpo_kit.errors import ConfigError
from vpo_kit.evaluation.pictured import METRICS as OF_PICTURES
from vpo_kit.evaluation.statistics import Paired
from vpo_kit.measures import GROUPS, Direction, Metric
from vpo_kit.registry import METRICS, TRUTHS, Registry

OF_SETS = (
    Metric(
        name="diversity",
        group="sets",
        direction="higher",
        unit="feature",
        about="mean distance between videos of one prompt",
        needs=("seeds",),
    ),
    Metric(
        name="frechet",
        group="sets",
        direction="lower",
        unit="feature^2",
        about="Frechet distance to the reference clips",
        needs=("reference",),
    ),
    Metric(
        name="kernel",
        group="sets",
        direction="lower",
        unit="kernel",
        about="squared kernel distance to the reference clips",
        needs=("reference",),
    ),
)
"""Metrics of whole sets of videos (`evaluation.sets`), which no measure of single ones gives."""


def kind_of(registry: Registry, name: str) -> Any:
    """The class of a measure or of a truth. Raises `ConfigError` for what has no facts, or is of no part of a table."""
    kind = registry.load(name)
    facts = getattr(kind, "metrics", None)
    if not (isinstance(kind, type) and callable(kind) and facts and all(isinstance(one, Metric) for one in facts)):
        raise ConfigError(f"{registry.kind} {name!r} must be a class with `metrics`, its facts (vpo_kit.measures)")
    if wrong := [one for one in facts if one.group not in GROUPS]:
        raise ConfigError(f"metric {wrong[0].name!r} is of group {wrong[0].group!r}, not of {', '.join(GROUPS)}")
    return kind


@cache
def known() -> dict[str, Metric]:
    """All metrics by name: of the registered measures, of sets and of the truths of made worlds.

    Raises `ConfigError` where two have one name.
    """
    kinds = [kind_of(registry, name) for registry in (METRICS, TRUTHS) for name in registry.targets()]
    found: dict[str, Metric] = {}
    for metric in (*(metric for kind in kinds for metric in kind.metrics), *OF_PICTURES, *OF_SETS):
        if found.setdefault(metric.name, metric) != metric:
            raise ConfigError(f"two metrics are called {metric.name!r}")
    return found


def about(name: str) -> Metric:
    """The facts of any metric: of the catalogue, of VBench (``vbench_*``), or a reward, where higher is better."""
    if name.startswith("vbench_"):
        direction: Direction = "neutral" if name == "vbench_dynamic_degree" else "higher"
        return Metric(
            name=name,
            group="VBench",
            direction=direction,
            unit="0 to 1",
            about=f"VBench's {name.removeprefix('vbench_').replace('_', ' ')}",
        )
    return known().get(name) or Metric(
        name=name, group="judges", direction="higher", unit="score", about="a reward as a judge"
    )


def ordered(names: Iterable[str]) -> list[str]:
    """The names by group, in the catalogue's order inside a group: motion comes right after the judges."""
    places = {name: place for place, name in enumerate(known())}
    return sorted(names, key=lambda name: (GROUPS.index(about(name).group), places.get(name, 0)))


def verdict(name: str, change: Paired) -> Literal["better", "worse", "changed", "unclear"]:
    """What a change means, told only where its corrected p is small; "changed" for a metric without direction."""
    direction = about(name).direction
    if not change.sign:
        return "unclear"
    if direction == "neutral":
        return "changed"
    return "better" if (change.sign > 0) == (direction == "higher") else "worse"
