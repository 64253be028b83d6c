"""From a recipe to what its run learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from vpo_kit.commands.recipe import Recipe
from vpo_kit.errors import DataError
from vpo_kit.models.base import Settings, VideoModel
from vpo_kit.models.cache import DiskCache
from vpo_kit.pairing import store
from vpo_kit.pairing.clips import read_folder
from vpo_kit.training.data import Clips, Pairs, Prompts, Source, usable

T = TypeVar("T")


def build(
    recipe: Recipe,
    model: VideoModel,
    settings: Settings,
    on_notice: Callable[[str], None],
    disk: DiskCache | None = None,
) -> Source:
    """Prompts, a pair set or clips, whose latents `disk` keeps; what cannot be used is named, and what is held out by
    its prompt is counted. Raises `DataError` when nothing remains.
    """
    if recipe.data == "prompts":
        return Prompts(_apart(recipe, recipe.prompts, lambda prompt: prompt, "prompts", on_notice))
    if recipe.data == "videos":
        assert recipe.run.videos is not None
        found = read_folder(recipe.run.videos, settings)
        for line in found.skipped:
            on_notice(f"left out: {line}")
        return Clips(model, _apart(recipe, found.clips, lambda clip: clip.prompt, "clips", on_notice), settings, disk)
    return _pairs(recipe, model, settings, on_notice)


def _pairs(recipe: Recipe, model: VideoModel, settings: Settings, on_notice: Callable[[str], None]) -> Pairs:
    run = recipe.run
    assert run.pairs is not None
    found = store.read(run.pairs)
    if found.model != run.model:
        on_notice(f"warning: {run.pairs} was made by {found.model}, and {run.model} is trained on it")
    wanted = recipe.method.needs.strategy
    others = sorted({pair.strategy for pair in found.pairs} - {wanted}) if wanted else []
    if others:
        on_notice(f"warning: method {run.method_name} is meant for {wanted} pairs, {run.pairs} has {others[0]} ones")
    shape = model.latent_shape(settings.frames, settings.height, settings.width)
    pairs = usable(found, shape, lambda pair: recipe.method.keeps(recipe.method_config, pair), on_notice)
    on_notice(f"{run.pairs}: {len(pairs)} of {len(found.pairs)} pairs have something to teach")
    kept = _apart(recipe, pairs, lambda pair: pair.prompt, "pairs", on_notice)
    return Pairs(run.pairs, kept, model.frame_map(settings.frames))


def _apart(
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
