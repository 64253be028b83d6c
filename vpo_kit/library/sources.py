"""What a run learns from, by its recipe."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from torch import Tensor

from vpo_kit import folders
from vpo_kit.clips import Clip, ClipFolder, cut_windows, look_through, ratings, read_folder
from vpo_kit.clips.index import Progress
from vpo_kit.errors import DataError
from vpo_kit.inputs import ImageFile, Inputs, cropped, inputs_of
from vpo_kit.library.display import count_bar, look_through_bar
from vpo_kit.models.base import VideoModel
from vpo_kit.models.buckets import best, parse
from vpo_kit.models.cache import DiskCache
from vpo_kit.models.kept import MOST_BYTES
from vpo_kit.models.settings import Settings, Size
from vpo_kit.models.tokens import cut_short
from vpo_kit.pairing import imported, origins, store
from vpo_kit.pairing.store import Pair, PairSet
from vpo_kit.processes import Processes
from vpo_kit.training.data import ClipSource, Encoder, Pairs, Prompts, Source, usable
from vpo_kit.training.recipe import Recipe

T = TypeVar("T")
CROPPED = 0.1
"""The share of a picture from which on it is said that it is cropped away."""
NAMED = 10
"""Clips whose pictures are treated, and pairs that are left out, that are named one by one."""
LATENTS = ".latents"
"""The folder of an imported set for the latents of its videos, of whatever model and size."""


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
        items = apart(recipe, recipe.prompts, lambda item: item.prompt, "prompts", notice)
        return of_prompts(items, settings, shapes(recipe), notice)
    if recipe.data == "videos":
        assert recipe.run.videos is not None
        found = find_clips(recipe.run.videos, settings, processes, console, buckets=shapes(recipe))
        clips = apart(recipe, found.clips, lambda clip: clip.prompt, "clips", notice)
        encoder = Encoder(model, disk)
        if disk is None and (line := too_many(clips, model)):
            notice(line)
        if not recipe.method.needs.ratings:
            return ClipSource(clips, encoder, first_frame=first_frame)
        rated = _rated(recipe.run.videos, clips, recipe.run.data.dimension, notice)
        return ClipSource(list(rated), encoder, list(rated.values()), first_frame=first_frame)
    return _pairs(recipe, model, settings, console, processes)


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


def read_pairs(recipe: Recipe) -> PairSet:
    """The set with the labels that the recipe asks for. Raises `DataError`."""
    assert recipe.run.pairs is not None
    data = recipe.run.data
    return origins.of_labeller(imported.relabelled(store.read(recipe.run.pairs), data.dimension), data.labeller)


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
    _named(found.skipped, partial(console.print, soft_wrap=True))
    for line in found.notices[:NAMED]:
        console.print(line, soft_wrap=True)
    if len(found.notices) > NAMED:
        console.print(f"and {len(found.notices) - NAMED} more such lines", soft_wrap=True)
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


def _pairs(recipe: Recipe, model: VideoModel, settings: Settings, console: Console, processes: Processes) -> Pairs:
    run, on_notice = recipe.run, partial(console.print, soft_wrap=True)
    assert run.pairs is not None
    found = read_pairs(recipe)
    strategies = {pair.strategy for pair in found.pairs}
    if not folders.same(found.model, run.model) and strategies != {"imported"}:
        on_notice(f"warning: {run.pairs} was made by {found.model}, and {run.model} is trained on it")
    wanted = recipe.method.needs.strategy
    others = sorted(strategies - {wanted, "local", "real", "imported"}) if wanted else []
    if others:
        on_notice(f"warning: method {run.method_name} is meant for {wanted} pairs, {run.pairs} has {others[0]} ones")
    shape = model.latent_shape(settings.frames, settings.height, settings.width)
    keeps = partial(recipe.method.keeps, recipe.method_config)
    pairs = processes.main_first(lambda: usable(found, shape, keeps, on_notice))
    said = f"{run.pairs}: {len(pairs)} of {len(found.pairs)} pairs have something to teach"
    on_notice(f"{said}; labelled {whose}" if (whose := origins.by_labeller(pairs)) else said)
    kept = apart(recipe, pairs, lambda pair: pair.prompt, "pairs", on_notice)
    encoded = None
    if "imported" in strategies:
        kept, encoded = encode_pairs(replace(found, pairs=kept), model, settings, console, processes)
    weights = [imported.weight(pair, run.data.dimension) for pair in kept] if run.data.vote_weights else None
    first_frame = partial(_first_frame, model) if run.data.first_frame else None
    return Pairs(run.pairs, kept, model.frame_map(settings.frames), encoded, weights, first_frame)


@torch.no_grad()
def _first_frame(model: VideoModel, latent: Tensor) -> Tensor:
    """The first frame of a clip's latent, as the autoencoder gives it back."""
    return model.decode(latent.to(model.device), frames=[0])[0, 0].float().cpu()


def encode_pairs(
    found: PairSet, model: VideoModel, settings: Settings, console: Console, processes: Processes
) -> tuple[list[Pair], Callable[[Pair], Mapping[str, Tensor]]]:
    """Encode the videos of a set's imported pairs, each once, shared by the processes; what is there from earlier is
    kept. The pairs that have latents now, and their latents; the others are named. Raises `DataError` for none.
    """
    notice = partial(console.print, soft_wrap=True)
    with look_through_bar(console) as progress:
        clips, wrong = processes.main_first(lambda: windows(found, settings, progress))
    encoder = Encoder(model, DiskCache(found.path / LATENTS, notice))
    failed: list[tuple[str, str]] = []
    own = processes.share(sorted(clips))
    with count_bar(console, "encode", len(own), "clips") as tick:
        for name in own:
            try:
                encoder(clips[name])
            except DataError as error:
                failed.append((name, str(error)))
            tick(1)
    wrong = {**wrong, **dict(processes.gather(failed))}
    kept, left_out = [], []
    for pair in found.pairs:
        why = next((wrong[member.file_name] for member in pair.videos if member.file_name in wrong), None)
        if pair.latents is not None or why is None:
            kept.append(pair)
        else:
            left_out.append(f"{pair.id}: {why}")
    _named(left_out, notice)
    if not kept:
        raise DataError(f"{found.path} has nothing to learn from: {left_out[0] if left_out else 'it has no pairs'}")
    unequal = sum(pair.second_frames is not None for pair in kept)
    if unequal:
        notice(
            f"{found.path}: members of {unequal} of {len(kept)} pairs differ in length or rate: both are cut to the "
            f"same {settings.frames} frames at {settings.fps:g} a second"
        )

    def latents(pair: Pair) -> dict[str, Tensor]:
        members = zip(("first", "second"), pair.videos, strict=True)
        return {who: encoder(clips[member.file_name]) for who, member in members}

    return kept, latents


def windows(found: PairSet, settings: Settings, progress: Progress) -> tuple[dict[str, Clip], dict[str, str]]:
    """The first window of each video of imported pairs, by file name, and why others have none."""
    hashes = {
        member.file_name: (sha256, pair.prompt)
        for pair in found.pairs
        if pair.latents is None
        for member, sha256 in zip(pair.videos, (pair.sha256.first, pair.sha256.second), strict=True)
    }
    known = look_through(found.path, sorted(hashes), progress)
    clips: dict[str, Clip] = {}
    wrong: dict[str, str] = {}
    for name, (sha256, prompt) in hashes.items():
        one = known.get(name)
        if one is None:
            wrong[name] = f"{name} is missing"
        elif one.sha256 != sha256:
            wrong[name] = f"{name} has changed since the set was made (its SHA-256 differs)"
        else:
            try:
                clips[name] = next(cut_windows(found.path / name, name, prompt, one, settings, 1))
            except DataError as error:
                wrong[name] = str(error)
    return clips, wrong


def _named(lines: Sequence[str], on_notice: Callable[[str], None]) -> None:
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
