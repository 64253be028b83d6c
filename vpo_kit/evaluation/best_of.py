"""What a person would do instead of training: sample n videos and keep the one that the reward likes best.

Legend: ``N`` candidates of each prompt, ``G`` prompts, ``S`` seeds of training. For every n the expectation over all
choices of n among the N candidates is taken, not one drawn choice: with ``r`` the candidate's rank by the reward
(0 best), it is the best of a random n with probability ``C(N - 1 - r, n - 1) / C(N, n)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vpo_kit.evaluation.samples import Results

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Equal:
    """The number of samples whose best is as good as one sample of a trained model, with its 95% interval.

    0 stands for less than the mean of one sample, and infinity for more than the best of all candidates.
    """

    n: float
    low: float
    high: float

    def facts(self) -> dict[str, float | str]:
        """The numbers as JSON can hold them, which knows no infinity."""
        return {name: value if math.isfinite(value) else "more" for name, value in asdict(self).items()}

    def __str__(self) -> str:
        return f"{_shown(self.n)} [{_shown(self.low)}, {_shown(self.high)}]"


def weights(count: int, n: int) -> Floats:
    """How likely each rank of `count` candidates is the best of a random `n` of them, ``[N]``, best rank first.

    Raises `ValueError` for more than there are.
    """
    if not 1 <= n <= count:
        raise ValueError(f"the best of {n} of {count} candidates")
    return np.array([math.comb(count - 1 - rank, n - 1) / math.comb(count, n) for rank in range(count)])


def counts(most: int) -> list[int]:
    """The numbers 2, 4, 8, ... up to `most`, and `most` itself."""
    return sorted({*(2**k for k in range(1, most.bit_length()) if 2**k <= most), most} - {0, 1})


def curve(candidates: Results, scores: Sequence[float], metric: str) -> Floats:
    """Expected `metric` of the best of n by `scores`, ``[G, N]`` with column ``n - 1``; prompts in their order.

    Raises `ValueError` where prompts have different numbers of candidates.
    """
    groups = np.asarray(candidates.groups)
    order = [np.flatnonzero(groups == group) for group in range(len(candidates.prompts))]
    if len({len(own) for own in order}) != 1:
        raise ValueError("every prompt needs the same number of candidates")
    index = np.stack(order)
    count = index.shape[1]
    ranked = np.take_along_axis(index, np.argsort(-np.asarray(scores)[index], axis=1, kind="stable"), 1)
    values = np.asarray(candidates.metrics[metric], float)[ranked]
    return values @ np.stack([weights(count, n) for n in range(1, count + 1)], 1)


def picked(base: Results, candidates: Results, scores: Sequence[float], n: int, name: str) -> Results:
    """The best of `n` as a row beside `base`: for each of its videos the expectation for that video's prompt."""
    shared = [key for key in base.metrics if key in candidates.metrics]
    found = {key: curve(candidates, scores, key)[:, n - 1] for key in shared}
    metrics = {key: [float(values[group]) for group in base.groups] for key, values in found.items()}
    return replace(base, name=name, metrics=metrics, made_with={})


def by_prompt(after: Sequence[Results], metric: str) -> Floats:
    """The mean over the videos of each prompt, ``[S, G]``, of evaluations of several seeds of training."""
    rows = [(np.asarray(one.groups), np.asarray(one.metrics[metric], float)) for one in after]
    return np.stack([np.bincount(groups, values) / np.bincount(groups) for groups, values in rows])


def equal(expected: Floats, after: Floats, *, resamples: int = 4000, seed: int = 0) -> Equal:
    """The n at which the best of n reaches a trained model's single sample.

    `expected` ``[G, N]`` is a `curve`, `after` ``[S, G]`` each seed's mean over its videos of a prompt. Between two
    whole numbers n is read off on a logarithmic scale. Prompts are drawn anew for both alike; with several seeds each
    draw adds one of Student's t for them, as on a comparison's board.
    """
    expected, after = np.asarray(expected, float), np.asarray(after, float)
    rng = np.random.default_rng(seed)
    draws = rng.integers(after.shape[1], size=(resamples, after.shape[1]))
    means = after.mean(0)[draws].mean(1)
    if len(after) > 1:
        error = after.mean(1).std(ddof=1) / math.sqrt(len(after))
        means = means + error * rng.standard_t(len(after) - 1, size=resamples)
    found = [_where(expected[draw].mean(0), mean) for draw, mean in zip(draws, means, strict=True)]
    low, high = np.percentile(found, [2.5, 97.5], method="nearest")
    return Equal(_where(expected.mean(0), float(after.mean())), float(low), float(high))


def _where(values: Floats, mean: float) -> float:
    """The n at which `values` ``[N]`` reach `mean`: the first time that they do."""
    if mean < values[0]:
        return 0.0
    above = np.flatnonzero(values >= mean)
    if not len(above):
        return math.inf
    place = int(above[0])
    if place == 0:
        return 1.0
    share = (mean - values[place - 1]) / (values[place] - values[place - 1])
    return float(2 ** (math.log2(place) + share * (math.log2(place + 1) - math.log2(place))))


def _shown(n: float) -> str:
    return "<1" if n == 0 else ">all" if math.isinf(n) else f"{n:.1f}"
