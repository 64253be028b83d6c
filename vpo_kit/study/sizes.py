"""How many raters a difference takes: planned with what studies usually find, told afterwards with what this one found.

A verdict is +1/2, -1/2 or 0 (a tie); two verdicts on one pair correlate by Krippendorff's alpha, which is what it is
for interval data. So the mean over n pairs with k raters each has the variance s (1 + (k - 1) alpha) / (n k), where s
is (1 - ties) / 4; raters' own leanings between rows are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Noise:
    """The share of ties, 0 to 1, and Krippendorff's alpha of a panel."""

    ties: float = 0.25
    alpha: float = 0.4

    @property
    def variance(self) -> float:
        return (1 - self.ties) / 4


PLANNED = Noise()


def effective(pairs: int, rows: int) -> float:
    """Pairs per match in which two rows meet, directly or through others: in a round-robin of R rows R/2 times those
    shown, as the variance of two strengths' difference is 2/R of what direct meetings alone give.
    """
    return pairs / (rows * (rows - 1) / 2) * rows / 2


def raters(difference: float, pairs: float, noise: Noise = PLANNED, *, power: float = 0.8) -> int | None:
    """Raters for each pair that find a win rate of 0.5 + `difference` with this power at the 5% level, two-sided.

    None where no number of them does, and only more pairs would.
    """
    wanted = (abs(difference) / _z(power)) ** 2
    alpha = max(0.0, noise.alpha)
    spare = wanted - noise.variance * alpha / pairs
    if spare <= 0:
        return None
    return max(1, math.ceil(noise.variance * (1 - alpha) / (pairs * spare) - 1e-9))


def least(pairs: float, count: float, noise: Noise = PLANNED, *, power: float = 0.8) -> float:
    """The smallest difference of a win rate from 0.5 that `count` raters for each pair find with this power."""
    alpha = max(0.0, noise.alpha)
    return _z(power) * math.sqrt(noise.variance * (1 + (count - 1) * alpha) / (pairs * count))


def _z(power: float) -> float:
    return NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(power)
