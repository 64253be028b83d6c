"""What a foreign set says: clips with scores, or pairs with verdicts, by dimension; and what could not be used."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class JudgedClip:
    """A video, people's `scores` by dimension where they rated clips, and the `model` that made it, where known."""

    path: Path
    prompt: str
    model: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    row: int = 0
    """The number of its row in the source, from 1 on."""


@dataclass(frozen=True, kw_only=True)
class JudgedPair:
    """Two clips, by their places in the set, and people's verdicts by dimension: +1 the first is better, -1, or 0.

    `shares` are the votes for the first one, 0 to 1, where they were counted; `row` is its place in the source, from
    1 on, or 0 where two rows made it.
    """

    first: int
    second: int
    verdicts: Mapping[str, int]
    shares: Mapping[str, float] = field(default_factory=dict)
    row: int = 0


@dataclass(frozen=True, kw_only=True)
class JudgedSet:
    """`left_out` names every row that cannot be used, `passed_over` every column of a few numbers that is no dimension,
    each with the reason; nothing is dropped beside them.
    """

    name: str
    clips: Sequence[JudgedClip]
    pairs: Sequence[JudgedPair]
    left_out: Sequence[str] = ()
    passed_over: Sequence[str] = ()

    @property
    def dimensions(self) -> list[str]:
        """Everything that is judged, in the set's order."""
        named = [*(pair.verdicts for pair in self.pairs), *(clip.scores for clip in self.clips)]
        return list(dict.fromkeys(dimension for found in named for dimension in found))

    @property
    def rated(self) -> bool:
        """Whether clips have scores of their own."""
        return any(clip.scores for clip in self.clips)


def pairs_of_ratings(clips: Sequence[JudgedClip], least: float = 0.0) -> list[JudgedPair]:
    """All pairs of one prompt: the clip with the higher score is better, by dimension; a tie where scores differ by
    `least` or less. Clips without a prompt are in no pair.
    """
    groups: dict[str, list[int]] = {}
    for i, clip in enumerate(clips):
        if clip.prompt:
            groups.setdefault(clip.prompt, []).append(i)
    pairs = []
    for members in groups.values():
        for i, j in itertools.combinations(members, 2):
            shared = [name for name in clips[i].scores if name in clips[j].scores]
            verdicts = {name: _verdict(clips[i].scores[name], clips[j].scores[name], least) for name in shared}
            if verdicts:
                pairs.append(JudgedPair(first=i, second=j, verdicts=verdicts))
    return pairs


def _verdict(one: float, other: float, least: float) -> int:
    """Ratings are decimals, which a processor rounds: 3.4 and 3.3 differ by 0.1, and not by a little more."""
    gap = one - other
    near = abs(gap) <= least or math.isclose(abs(gap), least) or math.isclose(one, other)
    return 0 if near else 1 if gap > 0 else -1
