"""What of the data is left out, named one by one as far as it is few; and what should have been."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from vpo_kit import plain
from vpo_kit.clips.captions import captions
from vpo_kit.config import Run
from vpo_kit.errors import DataError
from vpo_kit.pairing import store
from vpo_kit.training import recipe as recipes
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
    # a set keeps its prompts as they came, and those of files are told apart by their words alone
    lost = [prompt(item) for item in items if plain.one_line(prompt(item)) in recipe.kept_out]
    if not lost:
        return list(items)
    kept = [item for item in items if plain.one_line(prompt(item)) not in recipe.kept_out]
    line = f"{len(items) - len(kept)} of {len(items)} {what} are of prompts that are held out, {lost[0]!r} for one"
    if not kept:
        raise DataError(f"{line}: nothing is left to train on: give other --{recipe.data}, or other evaluation.prompts")
    on_notice(f"left out: {line}")
    return kept


def trained_on(run: Run, prompts: Sequence[str]) -> list[str]:
    """Those of `prompts` that are among a run's data and were not kept out of it. Raises `VpoError` where the data
    cannot be read any more.
    """
    recipe = recipes.check(run)
    if run.pairs is not None:
        known = [pair.prompt for pair in store.read(run.pairs).pairs]
    elif run.videos is not None:
        known = [caption for _, caption in captions(run.videos) if isinstance(caption, str)]
    else:
        known = [item.prompt for item in recipe.prompts]
    learned = set(map(plain.one_line, known)) - recipe.kept_out
    return [prompt for prompt in prompts if prompt in learned]
