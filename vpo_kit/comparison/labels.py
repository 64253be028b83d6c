"""How many labels a run's data has, and a pair set cut down to a budget of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vpo_kit import files
from vpo_kit.errors import DataError
from vpo_kit.methods.base import Method
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.store import PairSet


def labels_of(pair: Pair) -> int:
    """Labelled segments, ties among them: each was an answer. A label of the whole clip alone counts as one."""
    return len(pair.labels) if pair.labels is not None else int(pair.label is not None)


def used(method: type[Method], pairs: Sequence[Pair]) -> int:
    """The labels that `method` reads: of a method that takes only the clip of a pair, those that chose a winner."""
    by_label = method.needs.data[0] == "pairs"
    return sum(labels_of(pair) for pair in pairs if by_label or pair.source is None)


def first(found: PairSet, count: int) -> list[Pair]:
    """The first labelled pairs of a set, as many as have `count` labels or fewer. Raises `DataError` when the set has
    fewer labels than that: budgets that differ are none.
    """
    labelled = [pair for pair in found.pairs if labels_of(pair)]
    if (total := sum(map(labels_of, labelled))) < count:
        raise DataError(f"--budget labelled_segments={count}: {found.path} has only {total} labels")
    chosen: list[Pair] = []
    spent = 0
    for pair in labelled:
        spent += labels_of(pair)
        if spent > count:
            break
        chosen.append(pair)
    if not chosen:
        raise DataError(f"--budget labelled_segments={count}: a single pair of {found.path} has more labels")
    return chosen


def write(found: PairSet, pairs: Sequence[Pair], output: Path) -> None:
    """A set of some pairs of another, whole or not at all; nothing where it is already there. Raises `OutputError`."""
    if (output / "metadata.jsonl").is_file():
        return
    for pair in pairs:
        for name in pair.files:
            files.link(found.path / name, output / name)
    store.write(output, {**found.facts, "pairs": len(pairs), "first_of": str(found.path)}, pairs)
