"""The kernels that calculate the network's attention: diffusers' own dispatch, and what a person must know of each."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName

from vpo_kit.errors import ConfigError, first_line
from vpo_kit.models.base import VideoModel
from vpo_kit.sampler import SAMPLING

PACKAGES = {
    "xformers": ("xformers", "vpo-kit[xformers]"),
    "flash": ("flash_attn", "flash-attn"),
    "sage": ("sageattention", "sageattention>=2.1.1"),
}
"""Attention backends beside torch's own: module, and what to install."""

UNMASKED = {"WanPipeline", "WanImageToVideoPipeline"}
"""Families that mask no tokens: the kernels of flash and sage take no mask."""


def check_family(name: str, family: str) -> None:
    """Raises `ConfigError` where pipelines of the class `family` cannot have the attention backend `name`."""
    if name in ("flash", "sage") and family not in UNMASKED:
        raise ConfigError(f"attention: {family} masks its tokens, which {name} cannot: use sdpa or xformers")


def check_attention(name: str, dtype: str | None = None) -> None:
    """Raises `ConfigError` where the attention backend `name` cannot run here, with weights of `dtype` where given."""
    if name not in PACKAGES:
        return
    module, package = PACKAGES[name]
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"attention: {name} is not installed: pip install '{package}', or use sdpa")
    if not torch.cuda.is_available():
        raise ConfigError(f"attention: {name} needs a CUDA device, and there is none: use sdpa")
    if name in ("flash", "sage") and dtype == "float32":
        raise ConfigError(f"attention: {name} takes no float32: set dtype to bfloat16 or float16, or use sdpa")


def set_attention(model: VideoModel, name: str) -> None:
    """Through diffusers' dispatch. Processors that do not use it would only ignore the choice; theirs is sdpa.

    Raises `ConfigError` for a family without the dispatch, or a package that is too old for it.
    """
    for network in model.networks.values():
        processors = [getattr(module, "processor", None) for module in network.modules()]
        able = [processor for processor in processors if hasattr(processor, "_attention_backend")]
        if not able and name != "sdpa":
            raise ConfigError(f"attention: {type(network).__name__} has only sdpa in this version of diffusers")
        if not able:
            continue
        try:
            network.set_attention_backend({"sdpa": "native"}.get(name, name))
        except (RuntimeError, ImportError) as error:
            raise ConfigError(f"attention: {name} cannot be used ({first_line(error)}): use sdpa") from error
        if name == "sage":
            network.set_attention_backend("native")  # also what diffusers takes where a module has no choice
            sample_only(able)


def sample_only(processors: Iterable[Any]) -> None:
    """Sage has no backward pass, and what it rounds away must not enter a loss: a step of the sampler that builds no
    graph has it, and every other pass, that of a reference included, has sdpa.
    """
    for processor in processors:
        kind = type(processor)
        processor.__class__ = type(kind.__name__, (kind,), {"_attention_backend": property(_backend)})


def _backend(processor: Any) -> AttentionBackendName:
    return AttentionBackendName.SAGE if SAMPLING.get() else AttentionBackendName.NATIVE
