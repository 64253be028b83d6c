"""Less memory for more time: activation checkpointing, the autoencoder in pieces; and compiled blocks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Literal

from torch import nn

from vpo_kit.errors import ConfigError
from vpo_kit.models.base import VideoModel
from vpo_kit.models.rerun import rerun

BACKEND = "inductor"
"""What torch.compile hands the blocks to."""


def tune(
    model: VideoModel,
    *,
    gradient_checkpointing: bool = False,
    compile: bool = False,
    vae: Sequence[Literal["slicing", "tiling"]] = (),
) -> None:
    """Switch on what is asked for, in `model`'s network and autoencoder.

    Checkpointing gives the same gradient: each block runs again in the backward pass, with the adapter that is active
    then, which is the policy's as soon as ``policy.reference()`` is left, and so does each call of the autoencoder's
    decoder, of a few frames or of a tile of them. Slicing changes nothing but the order of
    additions; tiling blends the pieces' edges and changes the picture there.

    Raises `ConfigError` for what the family or this machine cannot do.
    """
    if gradient_checkpointing:
        _checkpoint(model)
    if compile:
        _compile(model)
    for kind in vae:
        _split(model, kind)


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
