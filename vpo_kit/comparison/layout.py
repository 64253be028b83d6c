"""How large a comparison has to be: the variance of a change by its sources, and the simulated power of a size.

Legend: ``S`` seeds of training, ``P`` prompts, ``K`` noises of each prompt. A change of one video is the effect, plus
what the prompt, the noise and the seed add to it, plus a rest of its own; all are drawn from normal distributions.

Source: variance components of a crossed and nested layout by the method of moments, Searle, Casella and McCulloch
(1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vpo_kit.comparison.pooling import pooled
from vpo_kit.errors import DataError

Floats = NDArray[np.float64]
SIMULATIONS, RESAMPLES = 400, 1000


@dataclass(frozen=True)
class Layout:
    """Prompts, noises of each, and seeds of training."""

    prompts: int
    noises: int
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Components:
    """Variances of a change, in the metric's unit squared; with one noise a prompt, `noise` is part of `prompt`."""

    prompt: float
    noise: float
    seed: float
    rest: float

    @classmethod
    def of(cls, changes: Sequence[Sequence[float]], groups: Sequence[int | str]) -> Self:
        """Those in the changes of each seed's videos ``[S, N]``, N = P K in any order; negative estimates count as 0.

        Raises `DataError` for fewer than two seeds or prompts, or where prompts have different numbers of videos.
        """
        _, index, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
        found = np.asarray(changes, float)
        if len(found) < 2 or len(counts) < 2 or len(set(counts.tolist())) != 1:
            raise DataError("variances take two seeds and two prompts at least, each prompt with as many videos")
        table = found[:, np.argsort(index, kind="stable")].reshape(len(found), len(counts), counts[0])
        return cls(**_moments(table))

    @classmethod
    def mean(cls, several: Sequence[Self]) -> Self:
        """Each variance's mean."""
        return cls(**{name: float(np.mean([asdict(one)[name] for one in several])) for name in asdict(several[0])})


def power(
    effect: float, components: Components, size: Layout, *, simulations: int = SIMULATIONS, seed: int = 0
) -> float:
    """The share of comparisons of this layout whose interval excludes zero when the true change is `effect`."""
    rng = np.random.default_rng(seed)
    prompts = [str(i) for i in range(size.prompts)]
    found = 0
    for _ in range(simulations):
        drawn = effect + _drawn(components, size, rng)
        told = pooled([0.0] * size.prompts, drawn.tolist(), prompts, resamples=RESAMPLES, seed=int(rng.integers(2**31)))
        found += told.low > 0 or told.high < 0
    return found / simulations


def _drawn(components: Components, size: Layout, rng: np.random.Generator) -> Floats:
    """Changes ``[S, P]`` of a comparison without an effect, each the mean over a prompt's noises."""
    prompt = rng.normal(0, np.sqrt(components.prompt + components.noise / size.noises), size.prompts)
    seed = rng.normal(0, np.sqrt(components.seed), (size.seeds, 1))
    rest = rng.normal(0, np.sqrt(components.rest / size.noises), (size.seeds, size.prompts))
    return np.asarray(prompt + seed + rest)


def _moments(table: Floats) -> dict[str, float]:
    """Variances from ``[S, P, K]`` by their mean squares."""
    seeds, prompts, noises = table.shape
    whole, by_seed = table.mean(), table.mean((1, 2))
    by_video, by_prompt = table.mean(0), table.mean((0, 2))
    apart = table - by_seed[:, None, None] - by_video + whole
    rest = float((apart**2).sum() / ((seeds - 1) * (prompts * noises - 1)))
    within = rest
    if noises > 1:
        within = float(seeds * ((by_video - by_prompt[:, None]) ** 2).sum() / (prompts * (noises - 1)))
    between = float(seeds * noises * ((by_prompt - whole) ** 2).sum() / (prompts - 1))
    trained = float(prompts * noises * ((by_seed - whole) ** 2).sum() / (seeds - 1))
    return {
        "prompt": max(0.0, (between - within) / (seeds * noises)),
        "noise": max(0.0, (within - rest) / seeds),
        "seed": max(0.0, (trained - rest) / (prompts * noises)),
        "rest": rest,
    }
