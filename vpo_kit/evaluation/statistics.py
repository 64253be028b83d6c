"""Paired statistics: the same prompts and seeds before and after, so that a difference is the method's.

Legend: ``N`` videos, ``G`` prompts (groups). Videos of one prompt are not independent, so whatever is drawn anew, and
whatever is counted as one case, is a prompt. Every random number comes from `seed`: the same input, the same output.

Sources: percentile bootstrap, Efron (1979); sign-flip test, Fisher (1935); Wilson (1927); Holm (1979).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.05
"""A change is called one where its corrected p is below this."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A paired change: means, difference with its interval, and the share of pairs that rose (ties count half)."""

    before: float
    after: float
    difference: float
    low: float
    high: float
    win_rate: float | None
    """The share of pairs that rose, an unchanged one as half; None for a metric of a whole set of videos, which has no
    pairs; its interval likewise.
    """
    count: int
    """Videos of each side."""
    win_low: float | None = None
    win_high: float | None = None
    p: float = 1.0
    """The probability of the difference under exchange of before and after, prompt by prompt; two-sided."""
    adjusted: float | None = None
    """`p` with Holm's correction over the metrics of one comparison; None where nothing has been corrected."""
    spread: float = 0.0
    """Standard deviation over all videos of both sides: the scale on which metrics can be set side by side."""

    def interval(self) -> dict[str, float]:
        """The change and the ends of its interval."""
        return {"change": self.difference, "low": self.low, "high": self.high}

    @property
    def significant(self) -> bool:
        """The corrected p (the plain one, where there is none) is below `LEVEL`."""
        return (self.p if self.adjusted is None else self.adjusted) < LEVEL

    @property
    def changed(self) -> bool:
        """Whether any prompt's values changed."""
        return not self.low == self.high == 0

    @property
    def sign(self) -> int:
        """The direction of the change: +1 rose, -1 fell, 0 cannot be told."""
        return int(math.copysign(1, self.difference)) if self.significant else 0


def paired(
    before: Sequence[float],
    after: Sequence[float],
    groups: Sequence[int | str],
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Paired:
    """The mean difference with its percentile bootstrap interval over prompts, wins with Wilson's interval, and p.

    `before` and `after` are values of the same prompts and seeds in the same order, `groups` says to which prompt each
    belongs. Raises `ValueError` for unequal or zero lengths.
    """
    old, new = np.asarray(before, float), np.asarray(after, float)
    if not len(old) == len(new) == len(groups) or not len(old):
        raise ValueError("before, after and groups must be of one length, and not empty")
    change = new - old
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(index, change).astype(float), np.bincount(index)
    draws = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    wins = float(((change > 0) + 0.5 * (change == 0)).mean())
    win_low, win_high = wilson(wins, len(sums), confidence)
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
        p=sign_flip(sums, resamples, seed),
        adjusted=None,
        spread=float(np.concatenate([old, new]).std()),
    )


def sign_flip(sums: Floats, resamples: int = 4000, seed: int = 0) -> float:
    """Two-sided p that changes ``[G]``, one for each prompt, are as likely to go up as down.

    The share of patterns of signs under which the total is as far from zero as it is: of all ``2^G`` patterns where
    they are no more than `resamples`, else of so many drawn ones and the pattern that was seen, so p is never 0.
    """
    seen = abs(sums.sum())
    reached = seen - 1e-9 * np.abs(sums).sum()  # sums in another order differ in the last bits
    totals = signs(len(sums), resamples, seed) @ sums
    return float((np.abs(totals) >= reached).mean())


def signs(count: int, resamples: int, seed: int) -> Floats:
    """Patterns of +1 and -1, ``[R, count]``, all of them or drawn ones; the first is that of no change."""
    if 2**count <= resamples:
        return np.array(list(itertools.product((1.0, -1.0), repeat=count)))
    drawn = np.random.default_rng(seed).integers(2, size=(resamples, count)) * 2.0 - 1.0
    return np.concatenate([np.ones((1, count)), drawn])


def wilson(share: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of `count` cases.

    The cases are prompts: exact for one video of each, and cautious for more, as if all of a prompt agreed.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    scale = 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction: the smallest p times n, the next times n - 1, and so on, never falling, at most 1.

    Holds the chance of any false find among all n at the level, however the metrics hang together.
    """
    found: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(values, key=lambda key: values[key])):
        highest = max(highest, min(1.0, (len(values) - place) * values[name]))
        found[name] = highest
    return {name: found[name] for name in values}


def corrected(changes: Mapping[str, Paired]) -> dict[str, Paired]:
    """The changes of one comparison with `adjusted` set: Holm's correction over the metrics in which anything changed.

    The others have a p of 1 under every pattern of signs, so no false find can come of them (Tarone, 1990).
    """
    adjusted = holm({name: change.p for name, change in changes.items() if change.changed})
    return {name: replace(change, adjusted=adjusted.get(name, 1.0)) for name, change in changes.items()}


def jackknife(whole: float, without: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a statistic from its values with each of G prompts left out in turn, ``[G]``; G >= 2.

    For statistics of a whole set: a bootstrap would draw copies, which bring a set nearer to itself.
    """
    values = np.asarray(without, float)
    count = len(values)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(
        (count - 1) / count * ((values - values.mean()) ** 2).sum()
    )
    return whole - half, whole + half
