"""How far scores agree with people: accuracy, rank correlation, the best of each prompt; with intervals over prompts.

Legend: ``P`` pairs, ``N`` clips, ``G`` prompts. A pair's `margin` is the first clip's score less the second's.

Sources: accuracy with ties by the best margin, Deutsch et al. (arXiv 2305.14324), as VideoAlign (arXiv 2501.13918)
takes it; percentile bootstrap, Efron (1979).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpo_kit.judged.sets import JudgedPair, JudgedSet

Floats = NDArray[np.float64]
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class PromptInterval:
    """A number with its 95% interval over prompts, from `count` pairs or clips of `prompts` prompts."""

    value: float
    low: float
    high: float
    count: int
    prompts: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def accuracy(margins: Floats, verdicts: Floats) -> float:
    """Share of pairs that are no ties in which the better clip has the higher score; equal scores count half."""
    decided = verdicts != 0
    right = np.sign(margins[decided]) * verdicts[decided]
    return float(np.mean((right + 1) / 2)) if decided.any() else float("nan")


def accuracy_with_ties(margins: Floats, verdicts: Floats) -> float:
    """The same over all pairs, where margins of at most some size are called ties: the size that fits best is taken."""
    if not len(margins):
        return float("nan")
    sizes = np.abs(margins)
    order = np.argsort(sizes, kind="stable")
    right = (np.sign(margins) == verdicts) & (margins != 0)
    # called ties up to the k-th smallest margin: ties among those are right, and so are the decided ones beyond
    ties = np.concatenate([[0], np.cumsum(verdicts[order] == 0)])
    beyond = np.concatenate([np.cumsum(right[order][::-1])[::-1], [0]])
    # equal margins are called the same, and so is a margin of zero always
    ends = np.concatenate([[True], np.diff(sizes[order]) > 0, [True]])
    ends[: int((sizes == 0).sum())] = False
    return float((ties + beyond)[ends].max()) / len(margins)


def spearman(scores: Floats, ratings: Floats) -> float:
    """Rank correlation; ties share their mean rank. NaN where either is the same for all."""
    one, other = _ranks(scores), _ranks(ratings)
    one, other = one - one.mean(), other - other.mean()
    scale = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / scale) if scale else float("nan")


def reciprocal_rank(scores: Floats, ratings: Floats) -> float:
    """One over the place by the ratings of the clip with the highest score among a prompt's (ties: the better)."""
    return 1.0 / float(1 + (ratings > ratings[int(np.argmax(scores))]).sum())


def measures(found: JudgedSet, scores: Sequence[float], dimension: str) -> dict[str, PromptInterval]:
    """Everything that can be said of `scores` ``[N]``, NaN where a clip has none, in one dimension."""
    values = np.asarray(scores, float)
    pairs = _usable(found, values, dimension)
    measured = {
        "accuracy": _over_pairs(found, values, dimension, [p for p in pairs if p.verdicts[dimension]], accuracy),
        "accuracy with ties": _over_pairs(found, values, dimension, pairs, accuracy_with_ties),
        "accuracy, one generator": _over_pairs(
            found, values, dimension, [p for p in pairs if p.verdicts[dimension] and _same_model(found, p)], accuracy
        ),
    }
    if found.rated:
        measured |= _over_ratings(found, values, dimension)
    return {name: measure for name, measure in measured.items() if measure is not None}


def generators(found: JudgedSet, dimension: str) -> list[float] | None:
    """Scores of a judge that knows nothing but who made a clip: how often clips of that generator are better, in the
    pairs of all other prompts. None where the set names no generators.
    """
    if not any(clip.model for clip in found.clips):
        return None
    whole: dict[str, list[int]] = {}
    own: dict[tuple[str, str], list[int]] = {}
    for pair in found.pairs:
        verdict, first, second = pair.verdicts.get(dimension), found.clips[pair.first], found.clips[pair.second]
        if verdict is None or first.model == second.model:
            continue
        for model, won in ((first.model, verdict), (second.model, -verdict)):
            for sums in (whole.setdefault(model, [0, 0]), own.setdefault((model, first.prompt), [0, 0])):
                sums[0] += won
                sums[1] += 1
    scores = []
    for clip in found.clips:
        (won, total), (here, seen) = whole.get(clip.model, [0, 0]), own.get((clip.model, clip.prompt), [0, 0])
        scores.append((won - here) / (total - seen) if total > seen else 0.0)
    return scores


def _usable(found: JudgedSet, values: Floats, dimension: str) -> list[JudgedPair]:
    return [p for p in found.pairs if dimension in p.verdicts and np.isfinite(values[[p.first, p.second]]).all()]


def _same_model(found: JudgedSet, pair: JudgedPair) -> bool:
    first, second = found.clips[pair.first].model, found.clips[pair.second].model
    return bool(first) and first == second


def _over_pairs(
    found: JudgedSet,
    values: Floats,
    dimension: str,
    pairs: Sequence[JudgedPair],
    measure: Callable[[Floats, Floats], float],
) -> PromptInterval | None:
    margins = np.array([values[p.first] - values[p.second] for p in pairs], float)
    verdicts = np.array([p.verdicts[dimension] for p in pairs], float)
    prompts = _known_by([found.clips[pair.first].prompt for pair in pairs])
    return _bootstrap(prompts, lambda rows: measure(margins[rows], verdicts[rows]))


def _over_ratings(found: JudgedSet, values: Floats, dimension: str) -> dict[str, PromptInterval | None]:
    rows = [i for i, clip in enumerate(found.clips) if dimension in clip.scores and np.isfinite(values[i])]
    ratings = np.array([found.clips[i].scores[dimension] for i in rows], float)
    prompts, own = _known_by([found.clips[i].prompt for i in rows]), values[rows]
    groups = _groups(prompts)
    several = [group for group in groups if len(group) > 1]
    ranks = np.array([reciprocal_rank(own[group], ratings[group]) for group in several], float)
    return {
        "spearman": _bootstrap(prompts, lambda picked: spearman(own[picked], ratings[picked])),
        "reciprocal rank": _bootstrap([prompts[g[0]] for g in several], lambda picked: float(ranks[picked].mean())),
    }


def _known_by(prompts: Sequence[str]) -> list[str]:
    """The prompts, and for each that is empty a name of its own: what is of no prompt has nothing in common."""
    return [prompt or f"\0{i}" for i, prompt in enumerate(prompts)]


def _bootstrap(prompts: Sequence[str], measure: Callable[[Any], float], seed: int = 0) -> PromptInterval | None:
    """`measure` of rows, with its interval over prompts drawn anew; None where it has no value."""
    if not prompts:
        return None
    groups = _groups(prompts)
    value = measure(np.arange(len(prompts)))
    if not np.isfinite(value):
        return None
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(groups), size=(RESAMPLES, len(groups)))
    drawn = np.array([measure(np.concatenate([groups[i] for i in draw])) for draw in draws])
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return PromptInterval(value=value, low=float(low), high=float(high), count=len(prompts), prompts=len(groups))


def _groups(prompts: Sequence[str]) -> list[NDArray[np.intp]]:
    """The places of each prompt, prompts in their order."""
    found: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        found.setdefault(prompt, []).append(i)
    return [np.array(places) for places in found.values()]


def _ranks(values: Floats) -> Floats:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: Floats = ends - (counts - 1) / 2
    return means[places]
