"""Changes with less noise: the base's score is regressed on, where a plain change subtracts it.

Legend: ``S`` seeds of training, ``N`` videos. A trained model and its base saw the same noise, so some of a video's
score is the noise's: luck that both have. Subtraction takes the base's luck away once, whatever the two have in common;
where training has moved the model so far that little is left in common, that adds noise. What is taken away here is the
share that regression finds (a control variate). Its expectation is known to be zero, as luck is a score less the mean
of the prompt's candidates, so the change that is estimated is the same one.

Source: analysis of covariance, Fisher (1932); control variates, Lavenberg and Welch (1981).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vpo_kit.comparison.pooling import pooled
from vpo_kit.evaluation.samples import Results
from vpo_kit.evaluation.statistics import Paired

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Luck:
    """What a metric of the base is expected to be for each video's prompt, ``[N]``, and how far its own video is off,
    ``[N]``.
    """

    mean: Floats
    off: Floats

    @classmethod
    def of(cls, base: Results, candidates: Results, metric: str) -> Self:
        """That of the base's own videos, by many candidates of each of the same prompts."""
        groups, values = np.asarray(candidates.groups), np.asarray(candidates.metrics[metric], float)
        means = np.bincount(groups, values) / np.bincount(groups)
        mean = means[np.asarray(base.groups)]
        return cls(mean, np.asarray(base.metrics[metric], float) - mean)

    def share(self, values: Floats) -> float:
        """The slope of `values` ``[N]`` on the luck; 1 is what subtraction takes for granted. 0 where there is none."""
        spread = float(self.off.var())
        return float(np.cov(values, self.off, bias=True)[0, 1]) / spread if spread else 0.0


def change(after: Sequence[Sequence[float]], luck: Luck, groups: Sequence[int | str]) -> Paired:
    """The change from the base to each seed's values, `after` ``[S, N]``, with the interval of a board."""
    new = np.asarray(after, float)
    before = luck.mean + luck.share(new.mean(0) - luck.mean) * luck.off
    return pooled(before.tolist(), new.tolist(), groups)


def contrast(
    one: Sequence[Sequence[float]],
    other: Sequence[Sequence[float]],
    luck: Luck | None,
    groups: Sequence[int | str],
    *,
    resamples: int = 10_000,
) -> Paired:
    """`one` minus `other`, each ``[S, N]`` with the same seeds and noises; without `luck` the plain difference. With
    few seeds the ends of the interval of 10,000 `resamples` are uncertain by about a hundredth of its width.
    """
    apart = np.asarray(one, float) - np.asarray(other, float)
    expected = np.zeros(apart.shape[1]) if luck is None else luck.share(apart.mean(0)) * luck.off
    return pooled(expected.tolist(), apart.tolist(), groups, resamples=resamples)
