"""From a recipe to what its run learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from vpo_kit.clips import Clip, ClipFolder, ratings, read_folder
from vpo_kit.errors import DataError
from vpo_kit.library.display import look_through_bar
from vpo_kit.models.base import Settings, VideoModel
from vpo_kit.models.cache import DiskCache
from vpo_kit.pairing import store
from vpo_kit.processes import Processes
from vpo_kit.training.data import Clips, Pairs, Prompts, Source, usable
from vpo_kit.training.recipe import Recipe

T = TypeVar("T")
NAMED = 10
"""Clips whose pictures are treated that are named one by one."""


def build(
    recipe: Recipe,
    model: VideoModel,
    settings: Settings,
    console: Console,
    processes: Processes,
    disk: DiskCache | None = None,
) -> Source:
    """Prompts, a pair set or clips, whose latents `disk` keeps; what cannot be used is named, and what is held out by
    its prompt is counted. Raises `DataError` when nothing remains.
    """
    notice = partial(console.print, soft_wrap=True, markup=False)
    if recipe.data == "prompts":
        return Prompts(_apart(recipe, recipe.prompts, lambda prompt: prompt, "prompts", notice))
    if recipe.data == "videos":
        assert recipe.run.videos is not None
        found = find_clips(recipe.run.videos, settings, processes, console)
        clips = _apart(recipe, found.clips, lambda clip: clip.prompt, "clips", notice)
        if not recipe.method.needs.ratings:
            return Clips(model, clips, settings, disk)
        rated = _rated(recipe.run.videos, clips, notice)
        return Clips(model, list(rated), settings, disk, list(rated.values()))
    return _pairs(recipe, model, settings, notice)


def find_clips(
    folder: Path, settings: Settings, processes: Processes, console: Console, max_windows: int | None = None
) -> ClipFolder:
    """The clips of a folder; the main process looks through what is new, and what is left out or treated is named."""
    with look_through_bar(console) as progress:
        found = processes.main_first(lambda: read_folder(folder, settings, max_windows, progress))
    for line in found.skipped:
        console.print(f"left out: {line}", soft_wrap=True, markup=False)
    for line in found.notices[:NAMED]:
        console.print(line, soft_wrap=True, markup=False)
    if len(found.notices) > NAMED:
        console.print(f"and {len(found.notices) - NAMED} more such lines", soft_wrap=True)
    return found


def _rated(folder: Path, clips: Sequence[Clip], on_notice: Callable[[str], None]) -> dict[Clip, float]:
    """Clips with what people said of their files; how many have nothing is said. Raises `DataError` where none has."""
    known = ratings(folder)
    found = {clip: known[name] for clip in clips if (name := clip.name.rpartition("@")[0]) in known}
    if not found:
        raise DataError(f"{folder} has no verdicts: metadata.jsonl or metadata.csv gives each file a rating or verdict")
    if len(found) < len(clips):
        on_notice(f"left out: {len(clips) - len(found)} of {len(clips)} clips have neither rating nor verdict")
    return found


def _pairs(recipe: Recipe, model: VideoModel, settings: Settings, on_notice: Callable[[str], None]) -> Pairs:
    run = recipe.run
    assert run.pairs is not None
    found = store.read(run.pairs)
    if found.model != run.model:
        on_notice(f"warning: {run.pairs} was made by {found.model}, and {run.model} is trained on it")
    wanted = recipe.method.needs.strategy
    others = sorted({pair.strategy for pair in found.pairs} - {wanted, "local", "real"}) if wanted else []
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
