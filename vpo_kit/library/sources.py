"""What a run learns from, by its recipe."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from vpo_kit.clips import Clip, ClipFolder, ratings, read_folder
from vpo_kit.errors import DataError
from vpo_kit.inputs import ImageFile, Inputs, cropped, inputs_of
from vpo_kit.library import left_out, pair_source
from vpo_kit.library.display import look_through_bar
from vpo_kit.models.base import VideoModel
from vpo_kit.models.buckets import best, parse
from vpo_kit.models.cache import DiskCache
from vpo_kit.models.kept import MOST_BYTES
from vpo_kit.models.settings import Settings, Size
from vpo_kit.models.tokens import cut_short
from vpo_kit.processes import Processes
from vpo_kit.training.data import ClipSource, Encoder, Prompts, Source
from vpo_kit.training.recipe import Recipe

CROPPED = 0.1
"""The share of a picture from which on it is said that it is cropped away."""


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
    notice = partial(console.print, soft_wrap=True)
    buckets = shapes(recipe)
    for size in buckets:
        model.check_size(size)
    source = _source(recipe, model, settings, console, processes, disk)
    model.check_inputs(inputs_of(item) for item in source.inputs)
    if line := cut_short(model, [*source.inputs, *recipe.held_out]):
        notice(line)
    if buckets and source.sizes is not None:
        notice(in_buckets(buckets, source.sizes))
    return source


def shapes(recipe: Recipe) -> list[Size]:
    """The buckets of a run; none where all its videos have the shape of its sampling."""
    return [parse(words) for words in recipe.run.data.buckets]


def in_buckets(buckets: Sequence[Size], sizes: Sequence[Size]) -> str:
    """How many of the items, whose shapes are `sizes`, each of the `buckets` has, in a line."""
    counts = Counter(sizes)
    counted = {size: counts[size] for size in buckets}
    listed = (f"{count} of {size}" for size, count in sorted(counted.items(), key=lambda one: -one[1]))
    return f"buckets: {', '.join(listed)}"


def too_many(clips: Sequence[Clip], model: VideoModel, most_bytes: int = MOST_BYTES) -> str | None:
    """Where the latents of `clips` are more than is kept of them in memory, what that costs, in a line."""
    size = sum(4 * math.prod(model.latent_shape(*clip.size)) for clip in clips)
    if size <= most_bytes:
        return None
    return (
        f"the latents of {len(clips)} clips are {size / 1e9:.1f} GB, and {most_bytes / 1e9:.1f} GB of them stay in "
        "memory: the others are encoded again whenever they come; --set cache=DIR keeps all of them on disk"
    )


def loss(lost: Mapping[str, float], what: str) -> str | None:
    """How many files lose much to the videos' shapes, in a line; `lost` has each one's share."""
    much = sorted(((share, name) for name, share in lost.items() if share > CROPPED), reverse=True)
    if not much:
        return None
    return (
        f"{len(much)} of {len(lost)} {what} lose more than {CROPPED:.0%} of their area where they are cropped; most, "
        f"{much[0][0]:.0%}, {much[0][1]}"
    )


def _source(
    recipe: Recipe,
    model: VideoModel,
    settings: Settings,
    console: Console,
    processes: Processes,
    disk: DiskCache | None,
) -> Source:
    notice = partial(console.print, soft_wrap=True)
    first_frame = recipe.run.data.first_frame
    if recipe.data == "prompts":
        items = left_out.apart(recipe, recipe.prompts, lambda item: item.prompt, "prompts", notice)
        return of_prompts(items, settings, shapes(recipe), notice)
    if recipe.data == "videos":
        assert recipe.run.videos is not None
        found = find_clips(recipe.run.videos, settings, processes, console, buckets=shapes(recipe))
        clips = left_out.apart(recipe, found.clips, lambda clip: clip.prompt, "clips", notice)
        encoder = Encoder(model, disk)
        if disk is None and (line := too_many(clips, model)):
            notice(line)
        if not recipe.method.needs.ratings:
            return ClipSource(clips, encoder, first_frame=first_frame)
        rated = _rated(recipe.run.videos, clips, recipe.run.data.dimension, notice)
        return ClipSource(list(rated), encoder, list(rated.values()), first_frame=first_frame)
    return pair_source.of_pairs(recipe, model, settings, console, processes)


def of_prompts(
    items: Sequence[Inputs], settings: Settings, buckets: Sequence[Size], on_notice: Callable[[str], None]
) -> Prompts:
    """Prompts, whose pictures choose among the buckets. Raises `DataError` for one without a picture then."""
    sizes, lost = list[Size](), dict[str, float]()
    for item in items:
        shape = item.image.size if isinstance(item.image, ImageFile) else None
        if buckets and shape is None:
            raise DataError(f"data.buckets: the prompt {item.prompt!r} has no image, whose shape would choose its own")
        sizes.append((shape and best(buckets, shape)) or settings.size)
        files = [picture for picture in item.pictures if isinstance(picture, ImageFile)]
        lost |= {str(one.path): cropped(one.size, sizes[-1].height, sizes[-1].width) for one in files}
    if line := loss(lost, "pictures"):
        on_notice(line)
    return Prompts(items, sizes if buckets else None)


def find_clips(
    folder: Path,
    settings: Settings,
    processes: Processes,
    console: Console,
    max_windows: int | None = None,
    buckets: Sequence[Size] = (),
) -> ClipFolder:
    """The clips of a folder; the main process looks through what is new, and what is left out or treated is named."""
    with look_through_bar(console) as progress:
        found = processes.main_first(lambda: read_folder(folder, settings, max_windows, progress, buckets))
    left_out.named(found.skipped, partial(console.print, soft_wrap=True))
    for line in found.notices[: left_out.NAMED]:
        console.print(line, soft_wrap=True)
    if len(found.notices) > left_out.NAMED:
        console.print(f"and {len(found.notices) - left_out.NAMED} more such lines", soft_wrap=True)
    if lost := loss(found.cropped, "files"):
        console.print(lost, soft_wrap=True)
    return found


def _rated(
    folder: Path, clips: Sequence[Clip], dimension: str | None, on_notice: Callable[[str], None]
) -> dict[Clip, float]:
    """Clips with what people said of their files; how many have nothing is said. Raises `DataError` where none has."""
    known = ratings(folder, dimension)
    found = {clip: known[name] for clip in clips if (name := clip.name.rpartition("@")[0]) in known}
    if not found:
        raise unrated(folder)
    if len(found) < len(clips):
        on_notice(f"left out: {len(clips) - len(found)} of {len(clips)} clips have neither rating nor verdict")
    return found


def unrated(folder: Path) -> DataError:
    """The error that nobody has rated a clip of `folder`."""
    return DataError(f"{folder} has no verdicts: metadata.jsonl or metadata.csv gives each file a rating or verdict")
