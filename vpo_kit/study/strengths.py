"""How strong each row is, from people's verdicts: Bradley and Terry's model with ties as Davidson (1970) has them.

Row i beats row j with odds e^(s_i - s_j), and p(i) : p(j) : p(tie) = e^(s_i) : e^(s_j) : nu e^((s_i + s_j) / 2).

Legend: ``N`` verdicts, ``R`` rows, ``B`` resamples. Intervals are percentiles of a bootstrap that draws prompts and
raters anew, each independently, and weights a verdict by both counts (Owen, 2007), and never narrower than what the
likelihood's curvature gives, as where all of a few verdicts agree: rather too wide than too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RIDGE = 0.05
"""The precision of a normal prior on every strength: what holds those of a row that wins always, or was never shown."""
STEPS = 30


class Verdict(NamedTuple):
    """What one person said of one pair: +1 row `first` is better, -1 row `second`, 0 the same."""

    first: int
    second: int
    choice: int
    prompt: str
    rater: str


@dataclass(frozen=True, kw_only=True)
class RowStrength:
    """A row against the base: log odds, and the share of wins that the model gives it, ties as half; each with its
    interval. `verdicts` are those in which the row was shown, `raters` those who gave them.
    """

    log_odds: float
    low: float
    high: float
    win_rate: float
    win_low: float
    win_high: float
    verdicts: int
    raters: int

    @property
    def significant(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def fit(counts: Floats, ties: Floats) -> tuple[Floats, Floats, Floats]:
    """Strengths ``[B, R]``, whose mean is 0, log nu ``[B]``, and the curvature of both there ``[B, R + 1, R + 1]``, by
    Newton's method for all resamples at once.

    `counts` and `ties` are ``[B, R, R]``: how often i beat j, and how often the two were the same (symmetric).
    """
    size, rows, _ = counts.shape
    total = counts + counts.swapaxes(1, 2) + ties
    state = np.zeros((size, rows + 1))
    for _ in range(STEPS):
        strengths, log_nu = state[:, :rows], state[:, rows:, None]
        half = (strengths[:, :, None] - strengths[:, None, :]) / 2
        top = np.maximum(np.abs(half), log_nu)
        win, lose, same = np.exp(half - top), np.exp(-half - top), np.exp(log_nu - top)
        scale = win + lose + same
        mean, same = (win - lose) / (2 * scale), same / scale
        slope = np.empty_like(state)
        slope[:, :rows] = ((counts - counts.swapaxes(1, 2)) / 2 - total * mean).sum(2) - RIDGE * strengths
        slope[:, rows] = ((ties - total * same).sum((1, 2))) / 2 - RIDGE * state[:, rows]
        curve = _curvature(total, mean, same)
        step = np.linalg.solve(curve, slope[:, :, None])[:, :, 0]
        state = state + step * np.minimum(1.0, 2.0 / np.maximum(np.abs(step).max(1, keepdims=True), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    strengths = state[:, :rows]
    return strengths - strengths.mean(1, keepdims=True), state[:, rows], curve


def _curvature(total: Floats, mean: Floats, same: Floats) -> Floats:
    """Minus the second derivatives ``[B, R + 1, R + 1]`` of the log posterior."""
    size, rows, _ = total.shape
    spread = total * ((1 - same) / 4 - mean**2)
    found = np.zeros((size, rows + 1, rows + 1))
    found[:, :rows, :rows] = -spread
    diagonal = np.arange(rows)
    found[:, diagonal, diagonal] += spread.sum(2)
    found[:, :rows, rows] = found[:, rows, :rows] = -(total * mean * same).sum(2)
    found[:, rows, rows] = (total * same * (1 - same)).sum((1, 2)) / 2
    every = np.arange(rows + 1)
    found[:, every, every] += RIDGE
    return found


def win_rate(difference: Floats, log_nu: Floats) -> Floats:
    """The share of wins, ties as half, at a difference of strengths."""
    win, lose, same = np.exp(difference / 2), np.exp(-difference / 2), np.exp(log_nu)
    share: Floats = (win + same / 2) / (win + lose + same)
    return share


def strengths(
    verdicts: Sequence[Verdict], rows: int, base: int = 0, *, resamples: int = 1000, seed: int = 0
) -> list[RowStrength]:
    """Every row against row `base`, with 95% intervals. Raises `ValueError` without a verdict."""
    if not verdicts:
        raise ValueError("there is no verdict")
    weights = np.concatenate([np.ones((1, len(verdicts))), _drawn(verdicts, resamples, seed)])
    counts, ties = _counted(verdicts, weights, rows)
    found, log_nu, curve = fit(counts, ties)
    differences = found - found[:, [base]]
    shares = win_rate(differences, log_nu[:, None])
    half = 1.96 * _spread(curve[0], rows, base)
    low, high = np.percentile(differences[1:], [2.5, 97.5], axis=0)
    low, high = np.minimum(low, differences[0] - half), np.maximum(high, differences[0] + half)
    win_low, win_high = np.percentile(shares[1:], [2.5, 97.5], axis=0)
    win_low = np.minimum(win_low, win_rate(differences[0] - half, log_nu[0]))
    win_high = np.maximum(win_high, win_rate(differences[0] + half, log_nu[0]))
    return [
        RowStrength(
            log_odds=float(differences[0, row]),
            low=float(low[row]),
            high=float(high[row]),
            win_rate=float(shares[0, row]),
            win_low=float(win_low[row]),
            win_high=float(win_high[row]),
            verdicts=sum(row in (one.first, one.second) for one in verdicts),
            raters=len({one.rater for one in verdicts if row in (one.first, one.second)}),
        )
        for row in range(rows)
    ]


def _spread(curve: Floats, rows: int, base: int) -> Floats:
    """The standard deviation ``[R]`` of each difference from the base, by the curvature alone."""
    covariance = np.linalg.inv(curve)
    place = np.arange(rows)
    variance = covariance[place, place] + covariance[base, base] - 2 * covariance[place, base]
    spread: Floats = np.sqrt(np.maximum(variance, 0))
    return spread


def _drawn(verdicts: Sequence[Verdict], resamples: int, seed: int) -> Floats:
    """How often each verdict is drawn, ``[B, N]``: the product of how often its prompt and its rater are."""
    generator, weights = np.random.default_rng(seed), np.ones((resamples, len(verdicts)))
    for names in ([one.prompt for one in verdicts], [one.rater for one in verdicts]):
        known, index = np.unique(names, return_inverse=True)
        if len(known) > 1:  # one rater says nothing of the next
            weights *= generator.multinomial(len(known), np.full(len(known), 1 / len(known)), resamples)[:, index]
    return weights


def _counted(verdicts: Sequence[Verdict], weights: Floats, rows: int) -> tuple[Floats, Floats]:
    won = np.zeros((len(verdicts), rows * rows))
    same = np.zeros((len(verdicts), rows * rows))
    for place, one in enumerate(verdicts):
        there, back = one.first * rows + one.second, one.second * rows + one.first
        if one.choice:
            won[place, there if one.choice > 0 else back] = 1
        else:
            same[place, [there, back]] = 1
    return (weights @ won).reshape(-1, rows, rows), (weights @ same).reshape(-1, rows, rows)
