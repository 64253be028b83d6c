"""`vpo compare`: methods trained from the same base on the same budget, and one board of what each gained and cost."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from vpo_kit import config, files
from vpo_kit.comparison import baseline, board, board_files, board_page, layout, outcome, runner, text
from vpo_kit.comparison.board import Board, Line
from vpo_kit.comparison.plan import Given
from vpo_kit.comparison.runner import Planned
from vpo_kit.errors import ConfigError, VpoError
from vpo_kit.evaluation import people, report
from vpo_kit.evaluation.samples import finished
from vpo_kit.library import compare_power, forecast, leaderboard
from vpo_kit.library.display import terminal, working
from vpo_kit.library.entries import CompareRequest, Entry, begin, checked, widened
from vpo_kit.library.heartbeat import clock
from vpo_kit.pages.differing import differing, of_rows
from vpo_kit.pages.templates import Head, command, today
from vpo_kit.rewards.base import RewardSpec, add_fixed
from vpo_kit.training.recipe import usual


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
    console = terminal(quiet=request.quiet)
    entries, planned = checked(request, console)
    begin(request.output, entries, [one.run.seed for one in planned[0]])
    for line in forecast.lines(forecast.known([entry.recipe for entry in entries], planned)):
        leaderboard.notice(console, line)
    with _ended_by_sigterm():
        _measure_bases(planned, console)
        _measure_candidates(planned[0][0], console)
        # seed by seed: when broken off there is something of every method
        in_order = [one for runs in zip(*planned, strict=True) for one in runs]
        for one, lock in runner.turns(in_order, lambda line: leaderboard.notice(console, line)):
            leaderboard.train(console, one, lock)
            _write(request, entries, planned)
    found = _write(request, entries, planned)
    leaderboard.show(console, found)
    if _widened(request, entries, planned):
        line = "rows or seeds were added meanwhile: the page is that of the command which added them"
        leaderboard.notice(console, line)
    console.print(f"page: {request.output / 'report.html'}", soft_wrap=True, highlight=False)
    if not found.seeds:
        failed = next(line for line in found.lines if line.reasons)
        raise VpoError(f"no run was measured: {failed.name}, {failed.reasons[0]}")
    return found


def dry_run(request: CompareRequest) -> None:
    """Check everything and print what is left to train and what that costs; nothing is written. Raises `VpoError`."""
    console = terminal(quiet=request.quiet)
    entries, planned = checked(request, console)
    forecast.show([entry.recipe for entry in entries], planned, console)


def power(request: CompareRequest, effect: float) -> None:
    """Print how likely comparisons of several sizes are to find a change of `effect` in what the board is ranked by,
    from the variances that the runs at `output` show so far; nothing is trained. Raises `VpoError`.
    """
    console = terminal(quiet=request.quiet)
    entries, planned = checked(request, console)
    after = {
        entry.row.name: [found for found in map(outcome.read, runs) if found.before and found.after]
        for entry, runs in zip(entries, planned, strict=True)
    }
    evaluation = entries[0].recipe.run.evaluation
    now = layout.Layout(len(entries[0].recipe.held_out), evaluation.videos_per_prompt, request.seeds)
    compare_power.show(console, compare_power.variances(after, _rank_by(entries)), now, effect)


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


def _with_baselines(
    lines: list[Line], entries: Sequence[Entry], planned: Sequence[Sequence[Planned]], rank_by: str | None
) -> list[Line]:
    """The rows, each with the number of samples that it equals, and the base's best of n as rows of their own: of the
    first row's base, whose candidates are measured, and of all rows that share it.
    """
    first = planned[0][0]
    alike = [line for line, runs in zip(lines, planned, strict=True) if runs[0].base == first.base]
    wanted, base = _candidates(first), next((line.before for line in alike if line.before), None)
    found = finished(wanted.base / runner.BASE_SAMPLES) if wanted else None
    if wanted is None or base is None or found is None:
        return lines
    scoring = [e.recipe for e in entries if e.recipe.reward and not any(p.spec.in_groups for p in e.recipe.reward)]
    trained = {recipe.run.reward_name: recipe.reward for recipe in scoring}
    # where no method has a reward, a person would pick by a judge that may be trained on
    others = {p.spec.name: [p] for p in entries[0].recipe.judges if p.spec.for_training}
    rewards = {name: [(p.spec, p.weight) for p in plans] for name, plans in (trained or others).items()}
    scores = {name: add_fixed(parts, found.metrics) for name, parts in rewards.items()}
    lines = baseline.with_regressed(lines, base, found)
    if not scores:
        return lines
    own = baseline.lines(base, found, scores, wanted.base, first.run.seed)
    return [*baseline.with_equals(lines, base, found, next(iter(scores.values())), rank_by), *own]


def _write(request: CompareRequest, entries: Sequence[Entry], planned: Sequence[Sequence[Planned]]) -> Board:
    """``results`` as .json, .md, .csv and .tex, and ``report.html``, of what there is by now; not where another command
    has added to the comparison, whose rows they would lack.
    """
    found = _found(request, entries, planned)
    place = request.output / "report.html"
    seconds = [row.machine.seconds * len(row.measured) for row in found.lines if row.trained and row.machine.seconds]
    head = Head(date=today(), duration=f"{clock(sum(seconds))} of all runs" if seconds else "", command=command())
    own = of_rows({e.row.name: differing(e.settings, usual(e.recipe)) for e in entries})
    page = board_page.render(found, place, head, own)
    with files.held(request.output):  # commands that share the runs may come here at the same moment
        if _widened(request, entries, planned):
            return found
        files.write(request.output / "results.json", json.dumps(board.results(found), indent=2) + "\n")
        files.write(request.output / "results.md", text.markdown(found))
        files.write(request.output / "results.csv", board_files.table(found))
        files.write(request.output / "results.tex", board_files.latex(found))
        files.write(place, page)
    return found


def _widened(request: CompareRequest, entries: Sequence[Entry], planned: Sequence[Sequence[Planned]]) -> bool:
    return widened(request.output, entries, [one.run.seed for one in planned[0]])


def _found(request: CompareRequest, entries: Sequence[Entry], planned: Sequence[Sequence[Planned]]) -> Board:
    """What there is by now."""
    lines = [
        board.line(e.row.name, e.row.method, e.labels, e.settings, [outcome.read(one) for one in runs])
        for e, runs in zip(entries, planned, strict=True)
    ]
    specs, rank_by = _judges(entries), _rank_by(entries)
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
    lines = _with_baselines(lines, entries, planned, rank_by)
    said = people.read(request.output)
    lines = [replace(row, people=said.get(row.name, {})) for row in lines]
    return Board(board.ranked(lines, rank_by), rank_by, facts, licences)


def _judges(entries: Sequence[Entry]) -> dict[str, RewardSpec]:
    every = [p.spec for e in entries for p in [*e.recipe.reward, *e.recipe.judges]]
    return {spec.name: spec for spec in every if not spec.in_groups}


def _rank_by(entries: Sequence[Entry]) -> str | None:
    """A judge that nothing was trained on, a held-out one before others."""
    trained = {part.spec.name for entry in entries for part in entry.recipe.reward}
    specs = _judges(entries)
    return min(specs, key=lambda name: (name in trained, specs[name].for_training), default=None)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends this command as Ctrl-C does, its training process with it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
