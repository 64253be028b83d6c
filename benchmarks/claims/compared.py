"""A board of the design as a `vpo compare`: run it, set rows against each other, and say what is decided.

Rows of a claim were trained from the same seeds and measured on the same noises, so their differences are paired, and
what of them is the base's luck with a noise is taken out (`comparison.regressed`).
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import facts
from benchmarks.claims import judges, page, plots, scores
from benchmarks.claims.design import Claim, Design, outcome
from benchmarks.claims.scores import Scores, WaitingError
from benchmarks.claims.sets import vpo
from vpo_kit.comparison import pooling, regressed
from vpo_kit.comparison.layout import Components, Layout
from vpo_kit.evaluation.samples import Results

SHOWN = ("gold", "vqa", "flawed", "motion", "speed")
"""The metrics that a board's table has."""
TENTH, BRIEF_STEPS = 10, 12
BRIEF = Layout(prompts=16, noises=1, seeds=2)


@dataclass(frozen=True, kw_only=True)
class Boards:
    """Where boards are, and their size; brief ones have a tenth of the steps and are no results."""

    work: Path
    design: Design
    brief: bool = False

    def size(self, board: str) -> Layout:
        return BRIEF if self.brief else self.design.layout(board)

    def folder(self, board: str) -> Path:
        return self.work / ("brief" if self.brief else "boards") / board

    def arguments(self, board: str) -> list[str]:
        """Of `vpo compare`, beside ``--output``."""
        size, planned = self.size(board), self.design.boards[board]
        own = ["--model", planned.model, *planned.arguments]
        if self.brief:
            own = _briefly(own)
        # the base's candidates are measured once for all boards (`judges`)
        measured = (f"num_prompts={size.prompts}", f"videos_per_prompt={size.noises}", "seed=0", "best_of=0")
        sets = [word for value in measured for word in ("--set", f"evaluation.{value}")]
        return ["compare", *own, "--seeds", str(size.seeds), *sets]

    def scores(self, board: str) -> Scores:
        """What a board measured: from its folder, or from its result where it was run elsewhere. Raises
        `WaitingError`.
        """
        folder = self.folder(board)
        return Scores.measured(folder) if (folder / "results.json").is_file() else Scores.kept(board)


def run(name: str, boards: Boards) -> None:
    """Train and measure a board and decide its claims; goes on where it was stopped. A brief one is only printed."""
    folder = boards.folder(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_order(boards.design)
    fresh, started = not folder.exists(), time.monotonic()
    arguments = boards.arguments(name)
    vpo(boards.work, *arguments, "--output", str(folder.relative_to(boards.work)))
    minutes = {"minutes": round((time.monotonic() - started) / 60, 1)} if fresh else {}
    if not boards.brief:
        boards.scores(name).keep(name)  # before a claim is looked at: it may wait for another board
    claims = decide(name, boards)
    if boards.brief:
        return
    told = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    found = {
        "command": shlex.join(["vpo", *arguments]), "design": boards.design.commit, **claims,
        **minutes,  # of a comparison that was not interrupted
        **told,
    }  # fmt: skip
    facts.write(f"claims/{name}", found)
    plots.board(told, SHOWN, facts.RESULTS / "claims" / f"{name}.png")
    page.board(name, found, SHOWN)


def settle(boards: Boards) -> None:
    """Decide what waited for another board, in the results that are there; nothing is run."""
    for name in boards.design.boards:
        path = facts.RESULTS / "claims" / f"{name}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if found.get("waiting"):
            found |= decide(name, boards)
            facts.write(f"claims/{name}", found)
            page.board(name, found, SHOWN)


def decide(name: str, boards: Boards) -> dict[str, dict[str, Any]]:
    """The claims of a board that are decided, and those that wait for another one, each with what it waits for."""
    claims, waiting = {}, {}
    for claim in boards.design.of(name):
        try:
            one = claims[claim.name] = decided(claim, boards)
            said = "{verdict}, {difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**one)
        except WaitingError as error:
            waiting[claim.name] = str(error)
            said = f"waits, {error}"
        print(f"{claim.name}: {said}", flush=True)
    return {"claims": claims, "waiting": waiting}


def decided(claim: Claim, boards: Boards) -> dict[str, Any]:
    """The contrast of a claim, the effect that would matter in the metric's unit, and the verdict. Raises
    `WaitingError` where a run that it is of has not ended.
    """
    own = boards.scores(claim.board)
    one, other = (_side(claim, row, own, boards) for row in (claim.one, claim.other))
    assert len({tuple(result.prompts) for result in [*one, *other]}) == 1
    base = own.base
    # candidates are the sprites' own: without them an interval is as wide as the noises make it
    is_known = not boards.brief and boards.design.boards[claim.board].model == judges.MODEL
    luck = _luck(claim.metric, base) if is_known else None
    sides = [[result.metrics[claim.metric] for result in side] for side in (one, other)]
    change = regressed.contrast(*sides, luck, base.groups)
    effect = claim.effect * (base.table()[claim.metric] if claim.share else 1.0)
    seeds = np.subtract(*sides).mean(1).tolist()
    told = outcome(claim, (change.difference, change.low, change.high), effect)
    return {**told, "p": change.p, "by_seed": seeds, "variances": _variances(sides, base.groups)}


def _side(claim: Claim, row: str, own: Scores, boards: Boards) -> list[Results]:
    """A row of the claim's board, or of another."""
    board, _, name = row.rpartition("/")
    return (boards.scores(board) if board else own).of(name, boards.size(claim.board).seeds)


def changes(before: Sequence[Results], after: Sequence[Results], metrics: Sequence[str]) -> dict[str, Any]:
    """How the metrics change between evaluations of the same noises, one on each side for each seed of training."""
    assert len({tuple(one.prompts) for one in [*before, *after]}) == 1
    found = {}
    for metric in metrics:
        old, new = (np.array([one.metrics[metric] for one in side]) for side in (before, after))
        change = pooling.pooled([0.0] * old.shape[1], (new - old).tolist(), before[0].groups)
        found[metric] = {
            "before": float(old.mean()), "difference": change.difference, "low": change.low, "high": change.high,
            "p": change.p, "by_seed": (new - old).mean(1).tolist(),
        }  # fmt: skip
    return found


def _luck(metric: str, base: Results) -> regressed.Luck | None:
    """How lucky the noises of a board are, by the base's candidates; None of a metric that is not measured of them."""
    candidates = scores.candidates()
    assert candidates.prompts == base.prompts
    return regressed.Luck.of(base, candidates, metric) if metric in candidates.metrics else None


def _variances(sides: Sequence[Sequence[Sequence[float]]], groups: Sequence[int]) -> dict[str, float]:
    return asdict(Components.of(np.subtract(*sides).tolist(), groups))


def _briefly(arguments: Sequence[str]) -> list[str]:
    """A tenth of the budget, or twelve steps where the recipes say how many."""
    if "--budget" not in arguments:
        return [*arguments, "--budget", f"optimiser_steps={BRIEF_STEPS}"]
    place = list(arguments).index("--budget") + 1
    name, _, value = arguments[place].partition("=")
    return [*arguments[:place], f"{name}={max(1, int(value) // TENTH)}", *arguments[place + 1 :]]


def _check_order(design: Design) -> None:
    """The design is committed before the runs that it speaks of: refuse to run what is not."""
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "benchmarks/claims/design.yaml"], cwd=facts.RESULTS.parents[1],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if changed or not design.commit:
        raise SystemExit("benchmarks/claims/design.yaml has changes that are not committed: commit them before a run")
