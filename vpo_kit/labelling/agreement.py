"""How well labellers agree: shares and Cohen's kappa over what two have labelled, Krippendorff's alpha of any number.
Pure functions.

A label is +1 (first), -1 (second) or 0 (tie).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vpo_kit.errors import DataError
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.store import PairSet

LABELS = (1, -1, 0)
Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True)
class Agreement:
    """Two labellers on the same items."""

    counts: Mapping[tuple[int, int], int]
    """How often each pair of labels was given: the first labeller's, then the second's."""

    @property
    def items(self) -> int:
        return sum(self.counts.values())

    @property
    def agreeing(self) -> int:
        return sum(count for (a, b), count in self.counts.items() if a == b)

    @property
    def share(self) -> float | None:
        return self.agreeing / self.items if self.items else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa (1960): agreement beyond what the labellers' own shares of each label give by chance.

        1 is full agreement, 0 chance. None without items, and where both give one and the same label throughout:
        chance explains everything then.
        """
        if self.share is None:
            return None
        chance = sum(
            sum(count for (a, _), count in self.counts.items() if a == label)
            * sum(count for (_, b), count in self.counts.items() if b == label)
            for label in LABELS
        ) / (self.items**2)
        return (self.share - chance) / (1 - chance) if chance < 1 else None

    @property
    def decided(self) -> Agreement:
        """The items that neither labeller calls a tie."""
        return Agreement({labels: count for labels, count in self.counts.items() if 0 not in labels})


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two sets' labels of the same videos."""

    segments: Agreement
    clips: Agreement
    pairs: int
    """Pairs of which both sets have labels."""
    unlabelled: int
    """Pairs in both sets of which one has no labels."""
    missing: int
    """Pairs of the first set that the second one lacks."""
    cut_differently: int
    """Pairs whose segments differ: only their clips are compared."""


def alpha(answers: Iterable[tuple[Hashable, int]]) -> float | None:
    """Krippendorff's alpha of labels ``(item, label)`` by any number of people, any of whom may have left items out.

    The distance of two labels is their difference squared (interval data): a tie is nearer to either than they are to
    each other. 1 is full agreement, 0 chance, below 0 systematic disagreement. None where no item has two labels, or
    all of those are one and the same. Source: Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability".
    """
    items: dict[Hashable, list[int]] = defaultdict(list)
    for item, label in answers:
        items[item].append(label)
    shared = [labels for labels in items.values() if len(labels) > 1]
    pooled = [label for labels in shared for label in labels]
    if len(set(pooled)) < 2:
        return None
    observed = sum(_squares(labels) / (len(labels) - 1) for labels in shared) / len(pooled)
    return 1 - observed / (_squares(pooled) / (len(pooled) * (len(pooled) - 1)))


def _squares(labels: Sequence[int]) -> float:
    """The sum of squared differences over all ordered pairs."""
    return 2 * (len(labels) * sum(x * x for x in labels) - sum(labels) ** 2)


def agreement(first: Mapping[Item, int], second: Mapping[Item, int]) -> Agreement:
    """Two labellers' labels by item; items that only one of them has labelled do not count."""
    return Agreement(Counter((label, second[item]) for item, label in first.items() if item in second))


def compare(first: PairSet, second: PairSet) -> Compared:
    """The labels of two sets for pairs with the same two videos (by SHA-256), whatever their ids.

    Raises `DataError` when there is no pair of which both have labels.
    """
    matched = list(_matched(first.pairs, second.pairs))
    both = [(a, b) for a, b in matched if a.label is not None and b.label is not None]
    if not both:
        reason = "no pair in common, by the SHA-256 of their videos" if not matched else "no pair that both label"
        raise DataError(f"{first.path} and {second.path} have {reason}")
    clips = Counter((int(a.label or 0), int(b.label or 0)) for a, b in both)
    alike = [(a, b) for a, b in both if a.segments == b.segments and a.labels is not None and b.labels is not None]
    segments = Counter(labels for a, b in alike for labels in _segments(a, b))
    return Compared(
        segments=Agreement(segments),
        clips=Agreement(clips),
        pairs=len(both),
        unlabelled=len(matched) - len(both),
        missing=len(first.pairs) - len(matched),
        cut_differently=sum(a.segments != b.segments for a, b in both),
    )


def _matched(first: Sequence[Pair], second: Sequence[Pair]) -> Iterator[tuple[Pair, Pair]]:
    """Pairs of the same videos; of several copies in the second set, the one with the same id, else the first."""
    by_videos: dict[tuple[str, str], list[Pair]] = {}
    for pair in second:
        by_videos.setdefault((pair.sha256.first, pair.sha256.second), []).append(pair)
    for pair in first:
        found = by_videos.get((pair.sha256.first, pair.sha256.second), [])
        if found:
            yield pair, next((other for other in found if other.id == pair.id), found[0])


def _segments(first: Pair, second: Pair) -> Iterator[tuple[int, int]]:
    yield from zip(first.labels or (), second.labels or (), strict=True)
