"""A LoRA that is there while videos are sampled, and at no other time: one that makes a chain of few steps do.

It is added by hooks on the linear layers, which look whether a step of the sampler is under way: the policy's LoRA and
the reference are switched, trained and exported without knowing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vpo_kit.config import Sampling
from vpo_kit.errors import ModelError
from vpo_kit.models.base import VideoModel
from vpo_kit.sampler import SAMPLING
from vpo_kit.training import initial, loras
from vpo_kit.training.lora import part_of


def check(sampling: Sampling) -> None:
    """Raises `ModelError` where there is no LoRA at ``sampling.lora``."""
    if sampling.lora is not None:
        loras.weights_of(sampling.lora)


@contextmanager
def attached(model: VideoModel, sampling: Sampling) -> Iterator[None]:
    """`model` with the LoRA of `sampling`, if there is one, which is taken off again. Raises as `attach`."""
    remove = attach(model, sampling)
    try:
        yield
    finally:
        remove()


def attach(model: VideoModel, sampling: Sampling) -> Callable[[], None]:
    """Let the steps of the sampler that build no graph have the LoRA ``sampling.lora`` at its strength, in the model's
    dtype, beside whatever LoRA is active. Returns what takes it off. At strength 0 nothing is done.

    `model` has no other LoRA yet. Raises `ModelError` for a file that is not a LoRA of the model's linear layers.
    """
    if sampling.lora is None or sampling.lora_strength == 0:
        return lambda: None
    found = initial.read(model, sampling.lora)
    scale, handles = sampling.lora_strength * found.alpha / found.rank, list[Any]()
    for name, network in model.networks.items():
        own = part_of(found.state, model.prefix(name))
        for key in (key for key in own if ".lora_A." in key):
            place = key.partition(".lora_A.")[0]
            layer = network.get_submodule(place)
            if not isinstance(layer, nn.Linear):
                raise ModelError(
                    f"{sampling.lora} changes {place}, which is no linear layer: it cannot be sampled with"
                )
            down, up = (own[k].to(model.device, model.dtype) for k in (key, key.replace(".lora_A.", ".lora_B.")))
            handles.append(layer.register_forward_hook(_adds(down, up * scale)))

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


def _adds(down: Tensor, up: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
    """A hook that adds ``x down^T up^T`` to a layer's output while a step is sampled."""

    def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not SAMPLING.get():
            return None
        (x,) = args
        return output + (x.to(down.dtype) @ down.T @ up.T).to(output.dtype)

    return hook


def size(path: Path) -> int:
    """How many numbers the LoRA behind `path` has, by its files' headers. Raises `ModelError`."""
    return sum(loras.count(file) for file in loras.weights_of(path).values())
