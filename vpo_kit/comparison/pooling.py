"""The change that a method makes, over prompts and over seeds of training.

Legend: ``S`` seeds, ``N`` videos, ``G`` prompts. All seeds saw the same prompts and noises, and share one base.

The interval has two levels. Prompts are drawn anew, as in `evaluation.statistics`, and for all seeds the same ones: a
prompt that is easy for one is easy for the others. Seeds are too few to be drawn from: no percentile interval over
three of them can cover more than three quarters of the time when they decide. So each draw of prompts adds a draw of
Student's t with ``S - 1`` degrees of freedom, times the standard error of the seeds' means. With one seed there is no
second level, and the interval is over prompts alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vpo_kit.errors import DataError
from vpo_kit.evaluation.metrics import ordered
from vpo_kit.evaluation.samples import Results
from vpo_kit.evaluation.statistics import Paired, corrected, paired, wilson

Floats = NDArray[np.float64]
PART = 10_000
"""Draws that are made at once."""


def changes(before: Results, after: Sequence[Results]) -> dict[str, Paired]:
    """The change of every metric that all seeds have, corrected for their number, in the order of a table.

    Raises `DataError` when the evaluations did not see the same prompts, pictures and seeds of noise.
    """
    for other in after:
        if before.of != other.of:
            raise DataError("the runs of a comparison were not evaluated on the same prompts, pictures and seeds")
    shared = ordered(key for key in before.metrics if all(key in other.metrics for other in after))
    found = {key: pooled(before.metrics[key], [other.metrics[key] for other in after], before.groups) for key in shared}
    return corrected(found)


def pooled(
    before: Sequence[float],
    after: Sequence[Sequence[float]],
    groups: Sequence[int | str],
    *,
    confidence: float = 0.95,
    resamples: int = 10000,
    seed: int = 0,
) -> Paired:
    """Like `paired`, from `before` ``[N]`` and the values of each seed, `after` ``[S, N]``; `count` is N.

    p is that of the two levels: twice the share of draws on the other side of zero. Wins are over all videos of all
    seeds, with as many cases as prompts.
    """
    if len(after) == 1:
        return paired(before, after[0], groups, confidence=confidence, seed=seed)
    old, new = np.asarray(before, float), np.asarray(after, float)
    change = new - old
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.bincount(index)
    sums = np.stack([np.bincount(index, row, minlength=len(counts)) for row in change])
    error = change.mean(1).std(ddof=1) / math.sqrt(len(after))
    means = _draws(sums.mean(0), counts, resamples, np.random.default_rng(seed), (error, len(after) - 1))
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    wins = float(((change > 0) + 0.5 * (change == 0)).mean())
    win_low, win_high = wilson(wins, len(counts), confidence)
    return Paired(
        before=float(old.mean()),
        after=float(new.mean()),
        difference=float(change.mean()),
        low=float(low),
        high=float(high),
        win_rate=wins,
        count=len(old),
        win_low=win_low,
        win_high=win_high,
        p=min(1.0, 2 * float(beyond + 1) / (resamples + 1)),
        spread=float(np.concatenate([old, new.ravel()]).std()),
    )


def _draws(
    sums: Floats, counts: NDArray[np.int64], count: int, rng: np.random.Generator, seeds: tuple[float, int]
) -> Floats:
    """Means ``[count]`` of prompts drawn anew, each with a draw of what `seeds` (standard error, degrees of freedom)
    add; in parts, so that many draws take no more memory than few.
    """
    error, freedom = seeds
    parts = []
    for first in range(0, count, PART):
        size = min(PART, count - first)
        drawn = rng.integers(len(counts), size=(size, len(counts)))
        means = sums[drawn].sum(1) / counts[drawn].sum(1)
        parts.append(means + error * rng.standard_t(freedom, size=size))
    return np.concatenate(parts)


def by_seed(before: Results, after: Mapping[int, Results]) -> dict[str, dict[int, float]]:
    """The mean change of every metric for each seed: how far the seeds agree."""
    means = before.table()
    tables = {seed: evaluation.table() for seed, evaluation in after.items()}
    return {
        key: {seed: table[key] - mean for seed, table in tables.items() if key in table} for key, mean in means.items()
    }
