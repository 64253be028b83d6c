"""What a comparison is of: its rows, checked, and the file that says so in its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from vpo_kit import config, files, formats
from vpo_kit.comparison import labels, plan
from vpo_kit.comparison.plan import Allowance, Given, Row
from vpo_kit.comparison.runner import Planned
from vpo_kit.errors import ConfigError, OutputError, VpoError
from vpo_kit.library import checks, contents, pair_source
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.store import PairSet
from vpo_kit.registry import METHODS
from vpo_kit.rewards import loading
from vpo_kit.training import initial
from vpo_kit.training import recipe as recipes
from vpo_kit.training.recipe import Recipe

LISTING = "compare.yaml"
MEASURED = {*config.Model.model_fields, "compile", "evaluation"}
"""Settings that change what the base is measured to be, beside its judges and where the LoRA starts."""


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """What is to be compared: the options of the command line."""

    methods: str | None
    output: Path
    budget: str = ""
    seeds: int = 3
    given: Given = field(default_factory=Given)
    model: str | None = None
    reward: str | None = None
    config: Path | None = None
    assignments: Sequence[str] = ()
    vary: Sequence[str] = ()
    quiet: bool = False


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row that has been checked, without seed and output: its recipe, what its data is known by (`contents.of`), and
    the labels in it. `part` is what is to be written where the budget allows only a part of a pair set.
    """

    row: Row
    recipe: Recipe
    contents: Mapping[str, str]
    labels: int = 0
    part: tuple[PairSet, list[Pair]] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What all runs of the row have in common, as plain values."""
        return _plain(self.recipe)


def checked(request: CompareRequest, console: Console) -> tuple[list[Entry], list[list[Planned]]]:
    """The rows and the runs of each, a seed each. Raises `VpoError`, also for a folder that holds something else, or a
    comparison with other settings.
    """
    _refuse_foreign(request.output)
    rows, budget, seeds = _rows(request)
    entries = [_entry(row, budget, request.output, console) for row in rows]
    scoring = [one for entry in entries for one in entry.recipe.scoring]
    for line in loading.foreign(scoring, entries[0].recipe.run.model):
        console.print(line, soft_wrap=True)
    _refuse_another(request.output, _listing(entries, seeds))
    return entries, [[_planned(entry, seed, request.output) for seed in seeds] for entry in entries]


def _rows(request: CompareRequest) -> tuple[list[Row], Allowance, list[int]]:
    """Rows, budget and seeds, from options, ``--set`` and the file, whose `methods` holds settings of single ones."""
    recipe = formats.recipe(config.read_file(request.config), request.config) if request.config else {}
    listed = recipe.pop("methods", None) or {}
    if not isinstance(listed, dict) or not all(isinstance(own or {}, dict) for own in listed.values()):
        raise ConfigError(f"{request.config}: methods maps each method to its settings")
    for name in listed:
        METHODS.check(str(name))
    if request.methods is None and not listed:
        raise ConfigError("vpo compare: give --methods, or a file with methods")
    methods = plan.read_methods(",".join(listed) if request.methods is None else request.methods)
    budget = plan.read_budget(request.budget)
    shared, own = plan.read_own(request.assignments, methods)
    options = {"model": request.model, "reward": request.reward}
    assigned = config.read_assignments(shared)
    assigned = config.merge(assigned, {key: value for key, value in options.items() if value is not None})
    seed = {"seed": assigned.get("seed", recipe.get("seed", 0))}
    first = config.validate(config.Run, seed).seed
    settings = plan.RowSettings(
        config.merge({"evaluation": {"seed": first}}, recipe),
        assigned,
        {name: config.merge(listed.get(name) or {}, own[name]) for name in methods},
    )
    varied = plan.read_vary(request.vary, methods)
    return (
        plan.rows(methods, settings, varied, request.given, budget),
        budget,
        [first + i for i in range(request.seeds)],
    )


def _entry(row: Row, budget: Allowance, output: Path, console: Console) -> Entry:
    """Raises `VpoError` that names the row."""
    try:
        recipe = initial.resolve(recipes.complete(row.values))
        if not recipe.held_out:
            raise ConfigError("evaluation.num_prompts is 0, and a comparison has to measure")
        checks.check(recipe)
        if recipe.data != "pairs":
            return Entry(row=row, recipe=recipe, contents=contents.of(recipe, console))
        assert recipe.run.pairs is not None
        seen = pair_source.read_pairs(recipe)  # with the labels that the run will read: its dimension's, its labeller's
        held = contents.of(recipe, console)
        if budget.labels is None:
            return Entry(row=row, recipe=recipe, contents=held, labels=labels.used(recipe.method, seen.pairs))
        chosen = labels.first(seen, budget.labels)
        found = store.read(recipe.run.pairs)
    except VpoError as error:
        raise type(error)(f"{row.name}: {error}") from error
    asked = [str(found.path.resolve()), *filter(None, (recipe.run.data.dimension, recipe.run.data.labeller))]
    name = f"{found.path.resolve().name}-{_digest(' '.join(asked))}-{budget.labels}"
    ids = {pair.id for pair in chosen}
    limited = recipe.run.model_copy(update={"pairs": output / "pairs" / name})
    return Entry(
        row=row,
        recipe=replace(recipe, run=limited),
        contents=held,
        labels=labels.used(recipe.method, chosen),
        part=(found, [pair for pair in found.pairs if pair.id in ids]),
    )


def begin(output: Path, entries: Sequence[Entry], seeds: Sequence[int]) -> None:
    """Write what is compared. Rows and seeds may be added to a comparison that is there already."""
    listed = _listing(entries, seeds)
    with files.held(output):  # two commands on one folder may begin at the same moment
        _refuse_another(output, listed)
        files.write(output / LISTING, yaml.safe_dump(listed, sort_keys=False, allow_unicode=True))
        for entry in entries:
            if entry.part is not None and entry.recipe.run.pairs is not None:
                labels.write(*entry.part, entry.recipe.run.pairs)


def widened(output: Path, entries: Sequence[Entry], seeds: Sequence[int]) -> bool:
    """Whether another command has added rows or seeds to this comparison since it began."""
    listed = config.read_file(output / LISTING)
    return not (set(listed["rows"]) <= {entry.row.name for entry in entries} and set(listed["seeds"]) <= set(seeds))


def _listing(entries: Sequence[Entry], seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "format": config.FORMAT,
        "seeds": list(seeds),
        "rows": {entry.row.name: entry.settings for entry in entries},
        "contents": {entry.row.name: dict(entry.contents) for entry in entries},
    }


def _refuse_foreign(output: Path) -> None:
    """Raises `OutputError` for a folder of other things."""
    if not (output / LISTING).is_file() and not files.bare(output):
        raise OutputError(f"{output} is not empty and holds no comparison: give another --output")


def _refuse_another(output: Path, new: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for a comparison with other settings."""
    listing = output / LISTING
    if listing.is_file():
        old = config.read_file(listing)
        formats.unchanged(old, listing, "comparison")
        _check_same(listing, old, new)


def _check_same(listing: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    hint = "rows and seeds may be added, nothing else may change: give another --output"
    for name, settings in old.get("rows", {}).items():
        if name not in new["rows"]:
            raise ConfigError(f"{listing.parent} was begun with {name}, which this command leaves out: {hint}")
        now = new["rows"][name]
        before = _plain(recipes.check(config.build(settings)))  # a setting that is newer than the file has its default
        changed = [key for key in now if before[key] != now[key]]
        if changed:
            raise ConfigError(f"{listing.parent} was begun with another {' and '.join(changed)} of {name}: {hint}")
        held = old.get("contents", {}).get(name, {})  # vpo 0.2.0 did not write it
        if other := [kind for kind, key in held.items() if new["contents"][name].get(kind, key) != key]:
            raise ConfigError(f"{listing.parent}: the {' and '.join(other)} of {name} are not what they were: {hint}")
    if missing := set(old.get("seeds", [])) - set(new["seeds"]):
        raise ConfigError(f"{listing.parent} was begun with seed {min(missing)}, which this command leaves out: {hint}")


def _plain(recipe: Recipe) -> dict[str, Any]:
    return recipe.run.model_dump(mode="json", exclude={"seed", "output"})


def _planned(entry: Entry, seed: int, output: Path) -> Planned:
    run = entry.recipe.run
    where = output / "runs" / f"{entry.row.folder}-{seed}"
    judges = sorted(
        (p.kind.__module__, p.kind.__qualname__, p.config.model_dump_json())
        for p in [*entry.recipe.reward, *entry.recipe.judges]
    )
    measured = run.model_dump(mode="json", include=MEASURED)
    key = _digest(json.dumps([measured, str(run.lora.init), judges], sort_keys=True))
    return Planned(entry.row.name, run.model_copy(update={"seed": seed, "output": where}), output / "base" / key)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
