"""A pair set as what a run learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from rich.console import Console
from torch import Tensor

from vpo_kit import folders
from vpo_kit.clips import Clip, cut_windows, look_through
from vpo_kit.clips.index import Progress
from vpo_kit.errors import DataError
from vpo_kit.library import left_out
from vpo_kit.library.display import count_bar, look_through_bar
from vpo_kit.models.base import VideoModel
from vpo_kit.models.cache import DiskCache
from vpo_kit.models.settings import Settings
from vpo_kit.pairing import imported, origins, store
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.store import PairSet
from vpo_kit.pairing.usable import usable
from vpo_kit.processes import Processes
from vpo_kit.training.data import Encoder
from vpo_kit.training.paired import Pairs
from vpo_kit.training.recipe import Recipe

LATENTS = ".latents"
"""The folder of an imported set for the latents of its videos, of whatever model and size."""


def read_pairs(recipe: Recipe) -> PairSet:
    """The set with the labels that the recipe asks for. Raises `DataError`."""
    assert recipe.run.pairs is not None
    data = recipe.run.data
    return origins.of_labeller(imported.relabelled(store.read(recipe.run.pairs), data.dimension), data.labeller)


def of_pairs(recipe: Recipe, model: VideoModel, settings: Settings, console: Console, processes: Processes) -> Pairs:
    """The pairs that have something to teach; how many they are is said, and what does not fit. Raises `DataError`."""
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
    kept = left_out.apart(recipe, pairs, lambda pair: pair.prompt, "pairs", on_notice)
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
    kept, lost = [], []
    for pair in found.pairs:
        why = next((wrong[member.file_name] for member in pair.videos if member.file_name in wrong), None)
        if pair.latents is not None or why is None:
            kept.append(pair)
        else:
            lost.append(f"{pair.id}: {why}")
    left_out.named(lost, notice)
    if not kept:
        raise DataError(f"{found.path} has nothing to learn from: {lost[0] if lost else 'it has no pairs'}")
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
