"""What a comparison will cost, before it starts: runs, steps, passes through the network, time where it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.console import Console

from vpo_kit.comparison import outcome
from vpo_kit.comparison.runner import Planned
from vpo_kit.errors import ConfigError
from vpo_kit.library import plan
from vpo_kit.library.display import working
from vpo_kit.library.leaderboard import empty_table, notice
from vpo_kit.planning import probe
from vpo_kit.planning.probe import Speed
from vpo_kit.planning.rehearsal import rehearse
from vpo_kit.training.recipe import Recipe

NAMED = 3
"""Rows whose time is not known are named up to so many, and counted beyond."""


@dataclass(frozen=True, kw_only=True)
class RowCost:
    """One row of a board: how many runs, how many of them are done, and what one run takes; None is not known."""

    name: str
    runs: int
    done: int
    steps: int
    passes: float | None
    seconds: float | None
    measured: bool
    """The seconds are those of the row's finished runs, and no estimate."""

    @property
    def left(self) -> int:
        return self.runs - self.done


def show(recipes: Sequence[Recipe], planned: Sequence[Sequence[Planned]], console: Console) -> None:
    """The table of `vpo compare --dry-run`; every method's step is rehearsed without weights, as by `vpo plan`."""
    with working(console, "rehearsing without weights"):
        speed = probe.measure(recipes[0].run.dtype)
        found = [_row(recipe, runs, speed) for recipe, runs in zip(recipes, planned, strict=True)]
    grid = empty_table("what is left to train", ("", "runs left", "steps", "passes", "a run", "together"))
    for row in found:
        passes = "not known" if row.passes is None else f"{row.passes:,.0f}"
        one = "not known" if row.seconds is None else f"{'' if row.measured else 'about '}{plan.duration(row.seconds)}"
        all_ = "" if row.seconds is None else plan.duration(row.left * row.seconds)
        grid.add_row(row.name, f"{row.left} of {row.runs}", f"{row.steps:,}", passes, one, all_)
    console.print(grid, "")
    for line in lines(found):
        notice(console, line)
    notice(
        console,
        f"times with about are estimates for {speed.device} as vpo plan makes them, which real runs seldom reach; the "
        "others are means of this comparison's finished runs",
    )


def lines(rows: Sequence[RowCost]) -> list[str]:
    """The sums, in words."""
    left, total = [row for row in rows if row.left], sum(row.runs for row in rows)
    said = [f"{sum(row.left for row in rows)} of {total} runs are left"]
    if left and all(row.passes is not None for row in left):
        said.append(f"{sum(row.left * (row.passes or 0) for row in left):,.0f} passes")
    timed = [row for row in left if row.seconds is not None]
    if timed:
        said.append(f"about {plan.duration(sum(row.left * (row.seconds or 0) for row in timed))}, one after the other")
    found = [", ".join(said)]
    if unknown := [row.name for row in left if row.seconds is None]:
        named = ", ".join(unknown) if len(unknown) <= NAMED else f"{len(unknown)} rows"
        found.append(f"how long they take is not known of {named}")
    return found


def known(recipes: Sequence[Recipe], planned: Sequence[Sequence[Planned]]) -> list[RowCost]:
    """Without a rehearsal: what the settings and finished runs say."""
    return [_row(recipe, runs, None) for recipe, runs in zip(recipes, planned, strict=True)]


def _row(recipe: Recipe, runs: Sequence[Planned], speed: Speed | None) -> RowCost:
    run = recipe.run
    ended = [outcome.read(one) for one in runs if one.finished()]
    times = [one.machine.seconds for one in ended if one.machine.seconds is not None and one.machine.seconds_complete]
    steps, passes, seconds = run.steps, float(run.max_passes) if run.max_passes else None, None
    if times:
        steps, passes = round(fmean(one.steps for one in ended)), fmean(one.passes for one in ended)
        seconds = fmean(times)
    elif speed is not None:
        steps, passes, seconds = _estimate(recipe, speed)
    return RowCost(
        name=runs[0].row, runs=len(runs), done=len(ended), steps=steps, passes=passes, seconds=seconds,
        measured=bool(times),
    )  # fmt: skip


def _estimate(recipe: Recipe, speed: Speed) -> tuple[int, float | None, float | None]:
    """Steps, passes and seconds of one run, the selection and the measurement after training included, loading not."""
    run, subject = recipe.run, plan.subject_of(recipe, 1)
    try:
        estimate = rehearse(subject)
    except ConfigError:  # a method of one's own may do what no rehearsal can follow
        return run.steps, None, None
    steps = min(run.steps, math.ceil(run.max_passes / estimate.passes)) if run.max_passes else run.steps
    training = steps * speed.seconds(estimate.ops["step"]) / estimate.steps
    if run.max_seconds:
        training = min(training, run.max_seconds)
    measured = plan.selecting(estimate, subject, speed) + plan.measuring(estimate, subject, speed)
    return steps, steps * estimate.passes, training + measured
