"""Paired statistics: the same prompts and seeds before and after, so that a difference is the method's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Paired:
    """A paired change: means, difference with its interval, and the share of pairs that rose (ties count half)."""

    before: float
    after: float
    difference: float
    low: float
    high: float
    win_rate: float
    count: int

    @property
    def significant(self) -> bool:
        """The interval leaves zero out."""
        return self.low > 0 or self.high < 0


def paired(
    before: Sequence[float],
    after: Sequence[float],
    groups: Sequence[int | str],
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Paired:
    """Percentile bootstrap of the mean difference, over groups: videos of one prompt are not independent.

    `before` and `after` are values of the same prompts and seeds in the same order, `groups` says to which prompt each
    belongs. Raises `ValueError` for unequal or zero lengths.
    """
    old, new = np.asarray(before, float), np.asarray(after, float)
    if not len(old) == len(new) == len(groups) or not len(old):
        raise ValueError("before, after and groups must be of one length, and not empty")
    change = new - old
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(index, change), np.bincount(index)
    draws = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    wins = float(((change > 0) + 0.5 * (change == 0)).mean())
    return Paired(float(old.mean()), float(new.mean()), float(change.mean()), float(low), float(high), wins, len(old))
