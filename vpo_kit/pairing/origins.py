"""Whose labels a set has: answers of people, scores of a reward and verdicts of a model may lie side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from vpo_kit.errors import DataError
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.store import PairSet
from vpo_kit.registry import nearest

UNNAMED = "nobody named"


def by_labeller(pairs: Iterable[Pair]) -> str:
    """The labelled pairs of each labeller in words, the most first: ``83 by vqa, 2 by people``."""
    counts = Counter(pair.labeller or UNNAMED for pair in pairs if pair.label is not None)
    return ", ".join(f"{count} by {name}" for name, count in counts.most_common())


def of_labeller(found: PairSet, name: str | None) -> PairSet:
    """The set with the pairs that `name` has labelled, or all of it without a name.

    Raises `DataError` where there are none, which says whose there are.
    """
    if name is None:
        return found
    kept = [pair for pair in found.pairs if pair.labeller == name]
    if not kept:
        known = {pair.labeller for pair in found.pairs if pair.labeller}
        has = f"its labels are {by_labeller(found.pairs)}" if known else "it has no labels"
        raise DataError(f"{found.path} has nothing labelled by {name!r}{nearest(name, known) if known else ''}: {has}")
    return replace(found, pairs=kept)
