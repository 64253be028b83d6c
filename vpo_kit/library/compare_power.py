"""`vpo compare --power`: what comparisons of several sizes would find, from the variances of runs that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from rich.console import Console

from vpo_kit.comparison.layout import Components, Layout, power
from vpo_kit.comparison.outcome import Outcome
from vpo_kit.errors import DataError
from vpo_kit.evaluation.samples import Results
from vpo_kit.library.leaderboard import empty_table, notice

Against = Literal["the base", "another row"]


@dataclass(frozen=True, kw_only=True)
class Variances:
    """The variances of a change of `metric` against the base and between two rows, and of how many they are means."""

    metric: str
    of: Mapping[Against, Components]
    counts: Mapping[Against, int]


def variances(outcomes: Mapping[str, Sequence[Outcome]], metric: str | None) -> Variances:
    """Those of the measured runs of each row. Raises `DataError` where no row has two of them."""
    if metric is None:
        raise DataError("power is that of a judge's change, and no judge measures here: set evaluation.judges")
    rows = {name: {o.seed: o for o in runs} for name, runs in outcomes.items()}
    found: dict[Against, list[Components]] = {"the base": [], "another row": []}
    for own in rows.values():
        if len(own) > 1:
            found["the base"].append(_of([(o.before, o.after) for o in own.values()], metric))
    for one, other in combinations(rows.values(), 2):
        shared = sorted({*one} & {*other})
        if len(shared) > 1:
            found["another row"].append(_of([(other[seed].after, one[seed].after) for seed in shared], metric))
    kept = {against: several for against, several in found.items() if several}
    if not kept:
        raise DataError("no row has two seeds that are measured, from which variances could be told: train them first")
    means = {against: Components.mean(several) for against, several in kept.items()}
    return Variances(metric=metric, of=means, counts={against: len(several) for against, several in kept.items()})


def show(console: Console, known: Variances, now: Layout, effect: float) -> None:
    """Print the variances, and the power of this comparison's size and of larger ones."""
    for against, parts in known.of.items():
        shares = ", ".join(f"{name} {value**0.5:.3f}" for name, value in vars(parts).items() if value)
        notice(console, f"change of {known.metric} against {against}, standard deviation by source: {shares}")
    table = empty_table(
        f"power for a change of {effect:g} in {known.metric}",
        ("prompts", "noises", "seeds", *(f"against {against}" for against in known.of)),
    )
    for size in larger(now):
        told = [f"{power(effect, parts, size):.0%}" for parts in known.of.values()]
        table.add_row(str(size.prompts), str(size.noises), str(size.seeds), *told)
    console.print(table)
    counts = " and ".join(f"{count} against {against}" for against, count in known.counts.items())
    notice(console, f"by simulation, from {counts}; power is the share of intervals (95%) that exclude zero")
    if now.noises == 1:
        notice(console, "with one noise a prompt its share cannot be told from the prompt's: more noises may give more")


def larger(now: Layout) -> list[Layout]:
    """This size, and larger ones in one direction and in all."""
    several, more = max(5, now.seeds), 2 * now.noises
    sizes = [
        now,
        Layout(2 * now.prompts, now.noises, now.seeds),
        Layout(now.prompts, more, now.seeds),
        Layout(now.prompts, now.noises, several),
        Layout(2 * now.prompts, more, several),
    ]
    return list(dict.fromkeys(sizes))


def _of(sides: Sequence[tuple[Results | None, Results | None]], metric: str) -> Components:
    changes, groups = [], list[int]()
    for before, after in sides:
        assert before is not None
        assert after is not None
        groups = after.groups
        changes.append((np.asarray(after.metrics[metric]) - np.asarray(before.metrics[metric])).tolist())
    return Components.of(changes, groups)
