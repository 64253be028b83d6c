"""What of the data is left out, named one by one as far as it is few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from vpo_kit.errors import DataError
from vpo_kit.training.recipe import Recipe

T = TypeVar("T")
NAMED = 10
"""Lines that are shown one by one; of what is more the number is."""


def named(lines: Sequence[str], on_notice: Callable[[str], None]) -> None:
    """Say why something is left out, a line each."""
    for line in lines[:NAMED]:
        on_notice(f"left out: {line}")
    if len(lines) > NAMED:
        on_notice(f"left out: {len(lines) - NAMED} more for such reasons")


def apart(
    recipe: Recipe, items: Sequence[T], prompt: Callable[[T], str], what: str, on_notice: Callable[[str], None]
) -> list[T]:
    """The items whose prompts are not kept out of training. Raises `DataError` when none is left."""
    kept = [item for item in items if prompt(item) not in recipe.kept_out]
    if len(kept) == len(items):
        return kept
    first = next(prompt(item) for item in items if prompt(item) in recipe.kept_out)
    line = f"{len(items) - len(kept)} of {len(items)} {what} are of prompts that are held out, {first!r} for one"
    if not kept:
        raise DataError(f"{line}: nothing is left to train on: give other --{recipe.data}, or other evaluation.prompts")
    on_notice(f"left out: {line}")
    return kept
