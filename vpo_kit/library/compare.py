"""`vpo compare`: methods trained from the same base on the same budget, and one board of what each gained and cost."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from vpo_kit import config, files, formats
from vpo_kit.comparison import baseline, board, board_files, board_page, labels, outcome, people, plan, runner, text
from vpo_kit.comparison.board import Board, Line
from vpo_kit.comparison.plan import Allowance, Given, Row
from vpo_kit.comparison.runner import Planned
from vpo_kit.errors import ConfigError, OutputError, VpoError
from vpo_kit.evaluation import report
from vpo_kit.evaluation.samples import finished
from vpo_kit.library import checks, contents, forecast, leaderboard
from vpo_kit.library.display import working
from vpo_kit.pairing import store
from vpo_kit.pairing.store import Pair, PairSet
from vpo_kit.registry import METHODS
from vpo_kit.rewards.base import add_fixed
from vpo_kit.training import initial
from vpo_kit.training import recipe as recipes
from vpo_kit.training.recipe import Recipe

LISTING = "compare.yaml"
LEARNING = (
    "method",
    "reward",
    "prompts",
    "pairs",
    "videos",
    "output",
    "seed",
    "steps",
    "max_passes",
    "max_seconds",
    "batch_size",
    "lora",
    "optimiser",
    "validation",
    "early_stopping",
    "checkpoints",
    "health",
)
"""Settings that do not change what the base is measured to be; of `lora`, where it starts does."""


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


def compare(
    output: Path | str,
    methods: str | Sequence[str] | None = None,
    *,
    prompts: Path | str | None = None,
    pairs: Path | str | None = None,
    independent_pairs: Path | str | None = None,
    videos: Path | str | None = None,
    **options: Any,
) -> Board:
    """Train methods on one base, budget and data, several seeds each, into the folder `output`; the board of gains and
    costs. `options` are the other fields of `CompareRequest`. Raises `VpoError`.
    """
    data = (Path(path) if path is not None else None for path in (prompts, pairs, independent_pairs, videos))
    named = methods if methods is None or isinstance(methods, str) else ",".join(methods)
    if unknown := sorted(set(options) - {one.name for one in fields(CompareRequest)}):
        raise ConfigError(f"compare takes no {unknown[0]!r}: settings are given as assignments=['section.field=value']")
    return run(CompareRequest(methods=named, output=Path(output), given=Given(*data), **options))


def run(request: CompareRequest) -> Board:
    """Check everything, train what is not finished, and write the board. Raises `VpoError`."""
    console = Console(quiet=request.quiet)
    entries, planned = _checked(request, console)
    _begin(request.output, entries, [one.run.seed for one in planned[0]])
    for line in forecast.lines(forecast.known([entry.recipe for entry in entries], planned)):
        leaderboard.notice(console, line)
    with _ended_by_sigterm():
        _measure_bases(planned, console)
        _measure_candidates(planned[0][0], console)
        for runs in zip(*planned, strict=True):  # seed by seed: when broken off there is something of every method
            for one in runs:
                leaderboard.train(console, one)
                _write(request, entries, planned)
    found = _write(request, entries, planned)
    leaderboard.show(console, found)
    console.print(f"page: {request.output / 'report.html'}", soft_wrap=True, markup=False, highlight=False)
    if not found.seeds:
        failed = next(line for line in found.lines if line.reasons)
        raise VpoError(f"no run was measured: {failed.name}, {failed.reasons[0]}")
    return found


def dry_run(request: CompareRequest) -> None:
    """Check everything and print what is left to train and what that costs; nothing is written. Raises `VpoError`."""
    console = Console(quiet=request.quiet)
    entries, planned = _checked(request, console)
    _refuse_another(request.output, _listing(entries, [one.run.seed for one in planned[0]]))
    forecast.show([entry.recipe for entry in entries], planned, console)


def _checked(request: CompareRequest, console: Console) -> tuple[list[Entry], list[list[Planned]]]:
    _refuse_foreign(request.output)
    rows, budget, seeds = _rows(request)
    entries = [_entry(row, budget, request.output, console) for row in rows]
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
        found = store.read(recipe.run.pairs)
        held = contents.of(recipe, console)
        if budget.labels is None:
            return Entry(row=row, recipe=recipe, contents=held, labels=labels.used(recipe.method, found.pairs))
        chosen = labels.first(found, budget.labels)
    except VpoError as error:
        raise type(error)(f"{row.name}: {error}") from error
    name = f"{found.path.resolve().name}-{_digest(str(found.path.resolve()))}-{budget.labels}"
    limited = recipe.run.model_copy(update={"pairs": output / "pairs" / name})
    return Entry(
        row=row,
        recipe=replace(recipe, run=limited),
        contents=held,
        labels=labels.used(recipe.method, chosen),
        part=(found, chosen),
    )


def _begin(output: Path, entries: Sequence[Entry], seeds: Sequence[int]) -> None:
    """Write what is compared. Rows and seeds may be added to a comparison that is there already.

    Raises `ConfigError` for a comparison with other settings.
    """
    new = _listing(entries, seeds)
    _refuse_another(output, new)
    files.write(output / LISTING, yaml.safe_dump(new, sort_keys=False, allow_unicode=True))
    for entry in entries:
        if entry.part is not None and entry.recipe.run.pairs is not None:
            labels.write(*entry.part, entry.recipe.run.pairs)


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
    measured = run.model_dump(mode="json", exclude=set(LEARNING))
    key = _digest(json.dumps([measured, str(run.lora.init), judges], sort_keys=True))
    return Planned(entry.row.name, run.model_copy(update={"seed": seed, "output": where}), output / "base" / key)


def _measure_bases(planned: Sequence[Sequence[Planned]], console: Console) -> None:
    """Every base once, by the first row whose data and method let it: one that fails will say so on the board."""
    for base in dict.fromkeys(one.base for runs in planned for one in runs):
        rows = [runs for runs in planned if runs[0].base == base]
        if not all(one.finished() for runs in rows for one in runs):
            with working(console, "measuring the base"):
                any(runner.measure_base(runs[0], lambda line: leaderboard.notice(console, line)) for runs in rows)


def _candidates(first: Planned) -> Planned | None:
    """What measures the base's candidates, from which the best of n is taken; None where that is off."""
    evaluation = first.run.evaluation
    if evaluation.best_of < 2:
        return None
    count = max(evaluation.best_of, evaluation.videos_per_prompt)
    run = first.run.model_copy(update={"evaluation": evaluation.model_copy(update={"videos_per_prompt": count})})
    return Planned(first.row, run, first.base.with_name(f"{first.base.name}-best-of-{count}"))


def _measure_candidates(first: Planned, console: Console) -> None:
    wanted = _candidates(first)
    if wanted is not None:
        with working(console, "measuring the base's best of n"):
            runner.measure_base(wanted, lambda line: leaderboard.notice(console, line))


def _with_baselines(lines: list[Line], entries: Sequence[Entry], first: Planned, rank_by: str | None) -> list[Line]:
    """The rows, each with the number of samples that it equals, and the base's best of n as rows of their own."""
    wanted, base = _candidates(first), next((line.before for line in lines if line.before), None)
    found = finished(wanted.base / runner.BASE_SAMPLES) if wanted else None
    if wanted is None or base is None or found is None:
        return lines
    scoring = [e.recipe for e in entries if e.recipe.reward and not any(p.spec.in_groups for p in e.recipe.reward)]
    trained = {recipe.run.reward_name: recipe.reward for recipe in scoring}
    # where no method has a reward, a person would pick by a judge that may be trained on
    others = {p.spec.name: [p] for p in entries[0].recipe.judges if p.spec.for_training}
    rewards = {name: [(p.spec, p.weight) for p in plans] for name, plans in (trained or others).items()}
    scores = {name: add_fixed(parts, found.metrics) for name, parts in rewards.items()}
    if not scores:
        return lines
    own = baseline.lines(base, found, scores, wanted.base, first.run.seed)
    return [*baseline.with_equals(lines, found, next(iter(scores.values())), rank_by), *own]


def _write(request: CompareRequest, entries: Sequence[Entry], planned: Sequence[Sequence[Planned]]) -> Board:
    """``results`` as .json, .md, .csv and .tex, and ``report.html``, of what there is by now."""
    lines = [
        board.line(e.row.name, e.row.method, e.labels, e.settings, [outcome.read(one) for one in runs])
        for e, runs in zip(entries, planned, strict=True)
    ]
    trained = {part.spec.name for entry in entries for part in entry.recipe.reward}
    every = [p.spec for e in entries for p in [*e.recipe.reward, *e.recipe.judges]]
    specs = {spec.name: spec for spec in every if not spec.in_groups}
    # a judge that nothing was trained on, a held-out one before others
    rank_by = min(specs, key=lambda name: (name in trained, specs[name].for_training), default=None)
    first = entries[0].recipe
    facts = {
        "format": config.FORMAT,
        "title": f"{first.run.model}: {', '.join(dict.fromkeys(e.row.method for e in entries))}",
        "model": first.run.model,
        "budget": request.budget or "steps of the recipe",
        "seeds": [one.run.seed for one in planned[0]],
        "prompts": len(first.held_out),
        "videos_per_prompt": first.run.evaluation.videos_per_prompt,
        "evaluation_seed": first.run.evaluation.seed,
        "versions": report.versions(),
    }
    licences = {name: spec.licence for name, spec in specs.items()}
    lines = _with_baselines(lines, entries, planned[0][0], rank_by)
    said = people.read(request.output)
    lines = [replace(row, people=said.get(row.name, {})) for row in lines]
    found = Board(board.ranked(lines, rank_by), rank_by, facts, licences)
    files.write(request.output / "results.json", json.dumps(board.results(found), indent=2) + "\n")
    files.write(request.output / "results.md", text.markdown(found))
    files.write(request.output / "results.csv", board_files.table(found))
    files.write(request.output / "results.tex", board_files.latex(found))
    place = request.output / "report.html"
    files.write(place, board_page.render(found, place))
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends this command as Ctrl-C does, its training process with it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
