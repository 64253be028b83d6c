"""Less memory for more time: activation checkpointing, the autoencoder in pieces; and compiled blocks."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Sequence
from typing import Literal

from torch import nn

from vpo_kit.errors import ConfigError
from vpo_kit.models.base import VideoModel
from vpo_kit.models.rerun import rerun

BACKEND = "inductor"
"""What torch.compile hands the blocks to."""

OVERLAP = 4
"""Tiles whose size is given overlap by one part in so many."""


def tune(
    model: VideoModel,
    *,
    gradient_checkpointing: bool = False,
    compile: bool = False,
    vae: Sequence[Literal["slicing", "tiling"]] = (),
    vae_tile_size: int | None = None,
) -> None:
    """Switch on what is asked for, in `model`'s network and autoencoder.

    Checkpointing gives the same gradient: each block runs again in the backward pass, with the adapter that is active
    then, which is the policy's as soon as ``policy.reference()`` is left, and so does each call of the autoencoder's
    decoder, of a few frames or of a tile of them. Slicing changes nothing but the order of
    additions; tiling blends the edges of pieces, of `vae_tile_size` pixels a side where it is given, and changes the
    picture there.

    Raises `ConfigError` for what the family or this machine cannot do.
    """
    if gradient_checkpointing:
        _checkpoint(model)
    if compile:
        _compile(model)
    for kind in vae:
        _split(model, kind)
    if vae_tile_size is not None:
        _resize(model, vae_tile_size)


def _checkpoint(model: VideoModel) -> None:
    model.checkpointed = True
    try:
        for network in model.networks.values():
            network.enable_gradient_checkpointing()
    except ValueError as error:
        name = type(network).__name__
        raise ConfigError(f"gradient_checkpointing: {name} does not support it: turn it off") from error
    if isinstance(decoder := getattr(model.pipeline.vae, "decoder", None), nn.Module):
        rerun(decoder)


def _compile(model: VideoModel) -> None:
    if BACKEND == "inductor" and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        raise ConfigError(
            "compile: there is no C++ compiler (g++ or clang++), and torch.compile needs one: turn it off"
        )
    try:
        for network in model.networks.values():
            network.compile_repeated_blocks(backend=BACKEND)
    except ValueError as error:
        name = type(network).__name__
        raise ConfigError(f"compile: {name} names no repeated blocks: turn it off") from error


def _split(model: VideoModel, kind: str) -> None:
    vae = model.pipeline.vae
    if kind == "slicing" and vae.config.get("timestep_conditioning"):  # diffusers 0.42 slices the latents, not the time
        raise ConfigError(f"vae: {type(vae).__name__} of {model.source} takes a time and cannot be sliced: use tiling")
    if not hasattr(vae, f"use_{kind}"):
        raise ConfigError(f"vae: {type(vae).__name__} has no {kind}: leave it out")
    getattr(vae, f"enable_{kind}")()


def _resize(model: VideoModel, size: int) -> None:
    """Tiles of `size` pixels a side, which overlap by a quarter, a whole number of latents: the library puts others
    where they do not belong.
    """
    vae, unit = model.pipeline.vae, OVERLAP * model.spatial_stride
    if not getattr(vae, "use_tiling", False):
        raise ConfigError("vae_tile_size is the size of tiles: set vae=[tiling] with it, or leave it out")
    takes = inspect.signature(vae.enable_tiling).parameters
    if "tile_sample_min_height" not in takes:
        raise ConfigError(f"vae_tile_size: {type(vae).__name__} has tiles of one size: leave it out")
    if size % unit:
        raise ConfigError(f"vae_tile_size: tiles of {model.source} have a multiple of {unit} pixels, not {size}")
    shares = {"sample_min": 1.0, "sample_stride": 1 - 1 / OVERLAP, "latent_min": 1 / model.spatial_stride}
    wanted: dict[str, float] = {
        name: int(share * size)
        for what, share in shares.items()
        for name in (f"tile_{what}_height", f"tile_{what}_width")
    }
    factors = ("tile_overlap_factor", "tile_overlap_factor_height", "tile_overlap_factor_width")
    wanted |= dict.fromkeys(factors, 1 / OVERLAP)
    vae.enable_tiling(**{name: value for name, value in wanted.items() if name in takes})
