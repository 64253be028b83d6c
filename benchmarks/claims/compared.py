"""A board of the design as a `vpo compare`: run it, set rows against each other, and say what is decided.

Rows of a claim were trained from the same seeds and measured on the same noises, so their differences are paired, and
what of them is the base's luck with a noise is taken out (`comparison.regressed`).
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import facts
from benchmarks.claims import page, plots, scores, sets
from benchmarks.claims.boards import Boards
from benchmarks.claims.design import Claim, Design, outcome
from benchmarks.claims.scores import Scores, WaitingError
from benchmarks.claims.sets import vpo
from vpo_kit import files
from vpo_kit.comparison import regressed
from vpo_kit.comparison.layout import Components
from vpo_kit.evaluation.samples import Results

SHOWN = ("gold", "vqa", "flawed", "text_accuracy", "motion", "speed")
"""The metrics that a board's table has."""
RESAMPLES = 1_000_000
"""With so many a verdict does not hang on the draw: the ends of an interval are then sure to about 0.0001 of `gold`."""
QUIET = 0.5
"""Processes that a machine may have beside a board of so many seconds."""


def run(name: str, boards: Boards) -> None:
    """Train and measure a board and decide its claims; goes on where it was stopped. A brief one is only printed, and
    one without claims has no section of the page.
    """
    folder = boards.folder(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    is_told = not boards.brief and bool(boards.design.of(name))
    _check_order(boards.design)
    if is_told:
        page.check(name)
    arguments = boards.arguments(name)
    boards.make_sets(sets.named(arguments))
    if not boards.brief:
        _check_quiet(arguments)
    vpo(boards.work, *arguments, "--output", str(folder.relative_to(boards.work)))
    if boards.brief:
        decide(name, boards)
        return
    with files.held(boards.work):  # commands that share a board end it at the same moment
        Scores.measured(folder).keep(name)  # before a claim is looked at: it may wait for another board
        told = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        claims = decide(name, boards)
        found = {"command": shlex.join(["vpo", *arguments]), "design": boards.design.commit, **claims, **told}
        facts.write(f"claims/{name}", found)
        if is_told:
            _show(name, boards, found)


def _show(name: str, boards: Boards, found: Mapping[str, Any]) -> None:
    """The pictures of a board, and its section of the page."""
    picture = facts.RESULTS / "claims" / f"{name}.png"
    plots.board(found, SHOWN, picture)
    if fields := boards.design.boards[name].curves:
        lines = _curves(boards.folder(name), fields)
        plots.lines(lines, ("optimiser steps", "held out"), picture.with_stem(f"{name}-steps"))
    page.board(name, found, SHOWN)


def settle(boards: Boards) -> None:
    """Decide every claim of the boards that were run, from the scores that are kept; nothing is run. A result goes on
    naming the design and the commit that it was run with.
    """
    for name in boards.design.boards:
        path = facts.RESULTS / "claims" / f"{name}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if "design" in found:  # a result of version 0.1.0 had none
            found |= decide(name, boards)
            files.write(path, json.dumps(found, indent=2) + "\n")
            page.board(name, found, SHOWN)


def decide(name: str, boards: Boards) -> dict[str, dict[str, Any]]:
    """The claims of a board that are decided, and those that wait for another one, each with what it waits for."""
    claims, waiting = {}, {}
    for claim in boards.design.of(name):
        try:
            claims[claim.name] = decided(claim, boards)
        except WaitingError as error:
            waiting[claim.name] = str(error)
            print(f"{claim.name}: waits, {error}", flush=True)
    page.say(claims)
    return {"claims": claims, "waiting": waiting}


def decided(claim: Claim, boards: Boards) -> dict[str, Any]:
    """The contrast of a claim, the effect that would matter in the metric's unit, and the verdict; where a row is to
    keep to another, also what the model before training comes to in its place. Raises `WaitingError` where a run that
    it is of has not ended.
    """
    found = _contrast(claim, boards)
    if claim.kind == "more" or scores.BASE in (claim.one, claim.other):
        return found
    untrained = _contrast(replace(claim, one=scores.BASE), boards)
    return {**found, "untrained": {key: untrained[key] for key in ("difference", "low", "high", "verdict")}}


def _contrast(claim: Claim, boards: Boards) -> dict[str, Any]:
    own = boards.scores(claim.board)
    one, other = (_side(claim, row, own, boards) for row in (claim.one, claim.other))
    base = own.base
    # candidates are the sprites' own: without them an interval is as wide as the noises make it
    is_known = not boards.brief and boards.design.boards[claim.board].model == scores.MODEL
    luck = _luck(claim.metric, base) if is_known else None
    sides = [[result.metrics[claim.metric] for result in side] for side in (one, other)]
    change = regressed.contrast(*sides, luck, base.groups, resamples=RESAMPLES)
    effect = claim.effect * (base.table()[claim.metric] if claim.share else 1.0)
    seeds = np.subtract(*sides).mean(1).tolist()
    told = outcome(claim, (change.difference, change.low, change.high), effect)
    return {**told, "p": change.p, "by_seed": seeds, "variances": _variances(sides, base.groups)}


def _side(claim: Claim, row: str, own: Scores, boards: Boards) -> list[Results]:
    """A row of the claim's board, or of another."""
    board, _, name = row.rpartition("/")
    found = boards.scores(board) if board else own
    if not own.is_alike(found):
        raise WaitingError(f"{claim.board} and {board} did not measure the same base: run one of them again")
    return found.of(name, boards.size(claim.board).seeds)


def _curves(folder: Path, fields: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """What the runs of a board logged of `fields`, by steps."""
    curves = {}
    for path in sorted(folder.glob("runs/*/metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for field in fields:
            curves[f"{field}, {path.parent.name}"] = [(row["step"], row[field]) for row in rows if field in row]
    return curves


def _luck(metric: str, base: Results) -> regressed.Luck | None:
    """How lucky the noises of a board are, by the base's candidates; None of a metric that is not measured of them."""
    candidates = scores.candidates()
    assert candidates.prompts == base.prompts
    return regressed.Luck.of(base, candidates, metric) if metric in candidates.metrics else None


def _variances(sides: Sequence[Sequence[Sequence[float]]], groups: Sequence[int]) -> dict[str, float]:
    return asdict(Components.of(np.subtract(*sides).tolist(), groups))


def _check_quiet(arguments: Sequence[str]) -> None:
    """Where runs have so many seconds, whatever else is running takes steps away from them."""
    load = os.getloadavg()[0]
    if any(word.startswith("seconds=") for word in arguments) and load > QUIET:
        raise SystemExit(f"a board of so many seconds is run alone, and the machine is busy (load {load:.1f})")


def _check_order(design: Design) -> None:
    """The design is committed before the runs that it speaks of: refuse to run what is not."""
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "benchmarks/claims/design.yaml"], cwd=facts.RESULTS.parents[1],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if changed or not design.commit:
        raise SystemExit("benchmarks/claims/design.yaml has changes that are not committed: commit them before a run")
