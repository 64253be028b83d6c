"""What is in a pair set, in numbers: labels, margins, motion, duplicates. Pure functions over its pairs.

A margin is the difference of two scores without its sign. A segment is decided when its label is not a tie. Scores
of a wrong length are cut to the shorter one here; `vpo pair check` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vpo_kit.pairing.origins import by_labeller
from vpo_kit.pairing.records import Pair

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class Labels:
    """How often each label was given; `none` counts what has no label."""

    first: int
    second: int
    tie: int
    none: int

    @property
    def count(self) -> int:
        return self.first + self.second + self.tie + self.none


@dataclass(frozen=True)
class MotionSummary:
    """Motion of decided segments: means of winners and of losers, and how often the winner moves less."""

    winner: float
    loser: float
    less: int
    count: int

    @property
    def ratio(self) -> float:
        """The motion of winners over that of losers; above 1, the labels reward motion."""
        return self.winner / self.loser if self.loser else float("nan")


@dataclass(frozen=True)
class Duplicates:
    """Ids of pairs that share something; each inner tuple is one group of two or more."""

    videos: list[tuple[str, ...]]
    latents: list[tuple[str, ...]]
    draws: list[tuple[str, ...]]
    """The same prompt and the same two seeds."""
    twins: list[str]
    """Pairs whose two videos are one and the same file content."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The numbers of a set."""

    pairs: int
    prompts: int
    strategies: list[str]
    labellers: str
    """``83 by vqa, 2 by people``; empty without labels."""
    etas: tuple[float, float, float] | None
    """Lowest, median, highest noise level of guided pairs."""
    segments: Labels
    clips: Labels
    both: int
    """Pairs with a +1 and a -1 among their segments."""
    labelled: int
    segment_margins: list[float] | None
    """The margins of segments at `QUANTILES`; None without scores."""
    clip_margins: list[float] | None
    motion: MotionSummary | None
    duplicates: Duplicates


def summarise(pairs: Sequence[Pair]) -> Summary:
    """All numbers of a set's readable pairs."""
    segments: list[int | None] = []
    for pair in pairs:
        segments += pair.labels or [None] * len(pair.segments)
    etas = [pair.eta for pair in pairs if pair.eta is not None]
    return Summary(
        pairs=len(pairs),
        prompts=len({pair.prompt for pair in pairs}),
        strategies=sorted({pair.strategy for pair in pairs}),
        labellers=by_labeller(pairs),
        etas=(min(etas), float(np.median(etas)), max(etas)) if etas else None,
        segments=_labels(segments),
        clips=_labels([pair.label for pair in pairs]),
        both=sum({1, -1} <= set(pair.labels or ()) for pair in pairs),
        labelled=sum(pair.labels is not None for pair in pairs),
        segment_margins=_quantiles([value for pair in pairs for value in margins(pair)]),
        clip_margins=_quantiles([abs(p.scores.first_clip - p.scores.second_clip) for p in pairs if p.scores]),
        motion=_motion(pairs),
        duplicates=duplicates(pairs),
    )


def margins(pair: Pair) -> list[float]:
    """The margin of each segment; empty without scores."""
    if pair.scores is None:
        return []
    return [abs(a - b) for a, b in zip(pair.scores.first, pair.scores.second, strict=False)]


def duplicates(pairs: Sequence[Pair]) -> Duplicates:
    """Pairs that share the content of a file, or prompt and seeds (in either order)."""

    def videos(pair: Pair) -> set[str]:
        return {pair.sha256.first, pair.sha256.second}

    return Duplicates(
        videos=_groups(pairs, videos),
        latents=_groups(pairs, lambda pair: {pair.sha256.latents} - {None}),
        draws=_groups(pairs, lambda pair: {(pair.prompt, *sorted(pair.seeds))} if pair.seeds else set()),
        twins=[pair.id for pair in pairs if len(videos(pair)) == 1],
    )


def _groups(pairs: Sequence[Pair], keys: Callable[[Pair], Iterable[Hashable]]) -> list[tuple[str, ...]]:
    found: dict[Hashable, list[str]] = {}
    for pair in pairs:
        for key in keys(pair):
            found.setdefault(key, []).append(pair.id)
    # two pairs that share both videos are one group
    return list(dict.fromkeys(tuple(ids) for ids in found.values() if len(ids) > 1))


def _labels(labels: Sequence[int | None]) -> Labels:
    return Labels(labels.count(1), labels.count(-1), labels.count(0), labels.count(None))


def _quantiles(values: Sequence[float]) -> list[float] | None:
    return [float(value) for value in np.quantile(values, QUANTILES)] if values else None


def _motion(pairs: Sequence[Pair]) -> MotionSummary | None:
    winners, losers = [], []
    for pair in pairs:
        if pair.motion is None or pair.labels is None:
            continue
        for label, first, second in zip(pair.labels, pair.motion.first, pair.motion.second, strict=False):
            if label:
                winners.append(first if label > 0 else second)
                losers.append(second if label > 0 else first)
    if not winners:
        return None
    less = sum(winner < loser for winner, loser in zip(winners, losers, strict=True))
    return MotionSummary(float(np.mean(winners)), float(np.mean(losers)), less, len(winners))
