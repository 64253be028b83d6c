"""Finished pair sets as several commands read and check them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vpo_kit.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from vpo_kit.pairing.store import PairSet


def readable(path: Path) -> PairSet:
    """The set at `path`. Raises `DataError` where not one of its pairs can be read."""
    from vpo_kit.pairing import store

    found = store.read(path)
    if not found.pairs:
        raise DataError(f"{path} holds no readable pair{f': {found.broken[0]}' if found.broken else ''}")
    return found


@contextmanager
def checking(console: Console, sets: Sequence[PairSet]) -> Iterator[Callable[[], None]]:
    """A bar that counts the pairs of `sets` while they are checked; what it gives is called after each pair."""
    from vpo_kit.library.display import count_bar

    with count_bar(console, "check", sum(len(found.pairs) for found in sets)) as tick:
        yield lambda: tick(1)
