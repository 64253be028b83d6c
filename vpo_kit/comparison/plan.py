"""The runs of a comparison: methods, what is set for each, what is swept, the budget. No weights are read here."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vpo_kit import catalogue, config
from vpo_kit.errors import ConfigError
from vpo_kit.methods.base import Data, Method
from vpo_kit.registry import METHODS, nearest
from vpo_kit.rewards.base import parse

SHARED_ONLY = ("evaluation", "model", "output", "revision", "seed", "variant")
"""Settings that are the same for all runs: without them nothing can be compared."""
BUDGETS = {"optimiser_steps": "steps", "network_passes": "passes", "seconds": "seconds", "labelled_segments": "labels"}
IN_GROUPS = [name for name, facts in catalogue.rewards().items() if facts.in_groups]
"""Rewards that only compare the candidates of a prompt: no judge of a video alone."""
OPTIONS: dict[Data, str] = {"prompts": "--prompts FILE", "pairs": "--pairs SET", "videos": "--videos DIR"}


@dataclass(frozen=True)
class Allowance:
    """What every run may use; None is no limit of this kind. With several, a run ends at the first that it reaches."""

    steps: int | None = None
    passes: int | None = None
    seconds: int | None = None
    labels: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The budget as settings of a run. No step costs less than a pass and a millisecond: so many are enough."""
        steps = self.steps or self.passes or (self.seconds and 1000 * self.seconds)
        found = {"steps": steps, "max_passes": self.passes, "max_seconds": self.seconds}
        return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True)
class Given:
    """What there is to learn from; `independent` are the pairs for methods that are meant for independent noise."""

    prompts: Path | None = None
    pairs: Path | None = None
    independent: Path | None = None
    videos: Path | None = None


@dataclass(frozen=True)
class RowSettings:
    """What is set for all runs, a recipe and over it ``--set`` and options, and what is set for single methods."""

    recipe: Mapping[str, Any]
    assigned: Mapping[str, Any]
    own: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Vary:
    """One swept field, of all methods or (`owner`) of one."""

    owner: str | None
    field: str
    values: Sequence[Any]


@dataclass(frozen=True)
class Row:
    """One row of the board: a method with its settings, trained with several seeds."""

    name: str
    method: str
    values: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """The name as a part of a path."""
        return re.sub(r"[^A-Za-z0-9._=+-]+", "-", self.name).strip("-.")


def read_methods(text: str) -> list[str]:
    """``"online,dense"``. Raises `ConfigError`."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        METHODS.check(name)
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"--methods {text!r}: name each method once, joined by commas")
    return names


def read_budget(text: str) -> Allowance:
    """``"optimiser_steps=200"``, or several joined by commas. Raises `ConfigError`."""
    found: dict[str, int] = {}
    for term in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = term.partition("=")
        if name not in BUDGETS:
            raise ConfigError(f"--budget {term!r}: unknown budget {name!r}{nearest(name, BUDGETS)}")
        if BUDGETS[name] in found or not re.fullmatch(r"0*[1-9][0-9]*", value):
            raise ConfigError(f"--budget {term!r}: write it once as {name}=N, with N a whole number above 0")
        found[BUDGETS[name]] = int(value)
    return Allowance(**found)


def read_own(assignments: Sequence[str], methods: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """``--set`` of all runs, and ``--set METHOD:section.field=value`` by method. Raises `ConfigError`."""
    shared: list[str] = []
    own: dict[str, list[str]] = {name: [] for name in methods}
    for text in assignments:
        owner, assignment = _owner(text, "--set", methods)
        (shared if owner is None else own[owner]).append(assignment)
    return shared, {name: config.read_assignments(texts) for name, texts in own.items()}


def read_vary(texts: Sequence[str], methods: Sequence[str]) -> list[Vary]:
    """``method.beta=50,500``, or ``dense:method.beta=50,500`` for one method; values as YAML. Raises `ConfigError`."""
    found: list[Vary] = []
    for text in texts:
        owner, assignment = _owner(text, "--vary", methods)
        field, _, listed = assignment.partition("=")
        try:
            values = config.parse_yaml(f"[{listed}]")
        except ValueError as error:
            raise ConfigError(f"--vary {text!r}: {' '.join(str(error).split())}") from error
        if not all(field.split(".")) or not values or len({str(value) for value in values}) < len(values):
            raise ConfigError(f"--vary {text!r}: write it as section.field=value,value, each value once")
        if any(old.field == field and (None in (owner, old.owner) or owner == old.owner) for old in found):
            raise ConfigError(f"--vary {text!r}: {field} is given twice")
        found.append(Vary(owner, field, values))
    return found


def rows(
    methods: Sequence[str], settings: RowSettings, varied: Sequence[Vary], given: Given, budget: Allowance
) -> list[Row]:
    """Every method with every combination of its swept values. Raises `ConfigError`."""
    found = []
    for name in methods:
        swept = [vary for vary in varied if vary.owner in (None, name)]
        for values in itertools.product(*(vary.values for vary in swept)):
            chosen = {vary.field: value for vary, value in zip(swept, values, strict=True)}
            found.append(_row(name, settings, chosen, given, budget))
    if len({row.folder.lower() for row in found}) < len(found):
        raise ConfigError("two rows would share a folder: their names differ in signs alone")
    return _with_judges(found)


def _row(name: str, settings: RowSettings, chosen: Mapping[str, Any], given: Given, budget: Allowance) -> Row:
    own: dict[str, Any] = dict(settings.own.get(name, {}))
    for field, value in chosen.items():
        own = config.merge(own, _nested(field, value))
    for key in SHARED_ONLY:
        if key in own:
            raise ConfigError(f"{name}: {key} is the same for all runs of a comparison: it cannot be set for one")
    values = config.merge(settings.recipe, {"method": {"name": name}})
    values = config.merge(config.merge(values, settings.assigned), budget.settings)
    shared = {key: values.pop(key, None) for key in OPTIONS}
    given = replace(given, **{key: path for key, path in shared.items() if getattr(given, key) is None})
    values = config.merge(values, own)
    if values["method"]["name"] != name:
        raise ConfigError("method.name cannot be set in a comparison: --methods names the methods")
    label = " ".join([name, *(f"{field}={value}" for field, value in chosen.items())])
    return Row(label, name, {**values, **_data(name, own, given)})


def _data(name: str, own: Mapping[str, Any], given: Given) -> dict[str, Any]:
    """What a method learns from: of the kinds that it can use, the preferred one that was given."""
    kind = METHODS.load(name)
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise ConfigError(f"{name} is not a method: it must be a subclass of vpo_kit.methods.base.Method")
    if any(key in own for key in OPTIONS):
        return {}
    independent = kind.needs.strategy == "independent"
    found = {
        "prompts": given.prompts,
        "pairs": given.independent if independent else given.pairs,
        "videos": given.videos,
    }
    chosen = [key for key in kind.needs.data if found[key] is not None]
    if chosen:
        return {chosen[0]: str(found[chosen[0]])}
    if "prompts" in kind.needs.data:  # the model's own
        return {}
    options = OPTIONS | ({"pairs": "--independent-pairs SET (vpo pair)"} if independent else {})
    raise ConfigError(
        f"method {name!r} learns from {' or '.join(kind.needs.data)}: "
        f"give {' or '.join(options[key] for key in kind.needs.data)}"
    )


def _with_judges(found: Sequence[Row]) -> list[Row]:
    """All rows are looked at by every reward that one of them is trained on, as far as it has no settings of its own:
    a judge is loaded with its defaults.
    """
    trained = []
    for row in found:
        reward = row.values.get("reward", "vqa")
        reward = {"name": reward} if isinstance(reward, str) else reward
        if METHODS.load(row.method).needs.reward != "none" and set(reward) <= {"name"}:
            named = [name for name, _ in parse(str(reward.get("name", "vqa")))]
            trained += [name for name in named if name.partition(":")[0] not in IN_GROUPS]
    rows = []
    for row in found:
        evaluation = dict(row.values.get("evaluation", {}))
        judges = evaluation.get("judges", config.Evaluation().judges)
        evaluation["judges"] = list(dict.fromkeys([*trained, *judges]))
        rows.append(replace(row, values={**row.values, "evaluation": evaluation}))
    return rows


def _owner(text: str, option: str, methods: Sequence[str]) -> tuple[str | None, str]:
    """``METHOD:field=...`` to method and the rest; a method may itself be ``package.module:Class``."""
    key, equals, value = text.partition("=")
    owner, colon, field = key.strip().rpartition(":")
    if not colon:
        return None, text
    if owner not in methods:
        raise ConfigError(f"{option} {text!r}: {owner!r} is not among --methods ({', '.join(methods)})")
    return owner, f"{field}{equals}{value}"


def _nested(field: str, value: Any) -> dict[str, Any]:
    for part in reversed(field.split(".")):
        value = {part: value}
    nested: dict[str, Any] = value
    return nested
