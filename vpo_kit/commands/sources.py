"""From a recipe to what its run learns from."""

from __future__ import annotations

from collections.abc import Callable

from vpo_kit.commands.recipe import Recipe
from vpo_kit.models.base import Settings, VideoModel
from vpo_kit.models.cache import DiskCache
from vpo_kit.pairing import store
from vpo_kit.pairing.clips import read_folder
from vpo_kit.training.data import Clips, Pairs, Prompts, Source, usable


def build(
    recipe: Recipe,
    model: VideoModel,
    settings: Settings,
    on_notice: Callable[[str], None],
    disk: DiskCache | None = None,
) -> Source:
    """Prompts, a pair set or clips, whose latents `disk` keeps; what cannot be used is named. Raises `DataError` when
    nothing remains.
    """
    if recipe.data == "prompts":
        return Prompts(recipe.prompts)
    if recipe.data == "videos":
        assert recipe.run.videos is not None
        found = read_folder(recipe.run.videos, settings)
        for line in found.skipped:
            on_notice(f"left out: {line}")
        return Clips(model, found.clips, settings, disk)
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
    return Pairs(run.pairs, pairs, model.frame_map(settings.frames))
