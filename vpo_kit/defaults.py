"""The settings of a run that nobody gives: published ones by method, and those that a model's folder
brings along. No torch here.

A later layer beats an earlier one: the program's own defaults, ``defaults.yaml`` (published settings, with their
source), ``recipe.yaml`` in the model's folder (what was found on that model), and then what the user gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from vpo_kit import config
from vpo_kit.config import Run
from vpo_kit.folders import recipe_of

PUBLISHED = Path(__file__).parent / "defaults.yaml"
LEARNING = ("method", "steps", "batch_size", "lora", "optimiser")
"""Sections whose numbers decide how a run learns: it is said where these come from."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    source: str
    values: dict[str, Any]


class _File(BaseModel):
    """Settings for every method, then for single ones, each with where they come from."""

    model_config = ConfigDict(extra="forbid")

    all: _Part | None = None
    methods: dict[str, _Part] = {}


@dataclass(frozen=True)
class Layer:
    """Settings that are not the user's, and where they come from."""

    source: str
    values: Mapping[str, Any]


def layers(model: str, method: str) -> list[Layer]:
    """The layers for a model and a method, the weakest first. Raises `ConfigError` for a file that cannot be read."""
    found = []
    for path in (PUBLISHED, recipe_of(model)):
        if path is None:
            continue
        file = config.validate(_File, config.read_file(path), f"{path}: ")
        own = f" ({path.parent.name}/{path.name})" if path != PUBLISHED else ""
        found += [Layer(part.source + own, part.values) for part in (file.all, file.methods.get(method)) if part]
    return found


def build(values: Mapping[str, Any]) -> Run:
    """A checked run from what the user gives, over the layers. Raises `ConfigError`."""
    given = config.merge({"method": {"name": "online"}}, values)
    method, below = str(given["method"].get("name", "online")), dict[str, Any]()
    for layer in layers(str(given.get("model", "sprites")), method):
        below = _over(below, layer.values)
    return config.build(_over(config.merge({"method": {"name": method}}, below), values))


def _over(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over the layer `low`, whose alpha was for its own rank."""
    own = high.get("lora")
    if isinstance(own, Mapping) and "rank" in own and "alpha" not in own and "lora" in low:
        low = {**low, "lora": {key: value for key, value in low["lora"].items() if key != "alpha"}}
    return config.merge(low, high)


def provenance(run: Run, given: Mapping[str, Any]) -> list[str]:
    """A line for each source of the numbers that decide how `run` learns; `given` is what the user gave."""
    found = layers(run.model, run.method_name)
    resolved = {key: run.model_dump(mode="json")[key] for key in LEARNING}
    sources: dict[str, list[str]] = {}
    for path, value in _leaves(resolved):
        if path == ("method", "name") or value is None:
            continue
        holders = ["given", *(layer.source for layer in reversed(found))]
        trees = [given, *(layer.values for layer in reversed(found))]
        source = next((who for who, tree in zip(holders, trees, strict=True) if _has(tree, path)), OURS)
        sources.setdefault(source, []).append(f"{'.'.join(path)} {_short(value)}")
    order = ["given", *(layer.source for layer in found), OURS]
    return [f"{source}: {', '.join(sources[source])}" for source in dict.fromkeys(order) if source in sources]


OURS = "from nowhere but our own choice, tried on the embedded model at most"


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _has(tree: Mapping[str, Any], path: Sequence[str]) -> bool:
    found: Any = tree
    for part in path:
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return True


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
