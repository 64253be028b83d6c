"""Weights that are on the device only while they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from vpo_kit.models.base import VideoModel

P = ParamSpec("P")
R = TypeVar("R")

OFFLOADED = ("text_encoder", "vae", "image_encoder")
"""How the names of the pipeline's parts begin that a training step needs only now and then."""


@dataclass(frozen=True)
class Copy:
    """A weight's copy on the device, and the place in a module that it takes from the weight at home."""

    own: dict[str, Any]
    name: str
    home: Tensor
    there: Tensor


def fetched(
    parts: Iterable[nn.Module],
    device: torch.device,
    copy: Callable[[Tensor, torch.device], Tensor] | None = None,
    waits: Callable[[Tensor], bool] = lambda _: True,
) -> list[Copy]:
    """Copies on `device` (by `copy`) of those weights of `parts` that wait (`waits`), one for each, however many
    names it has.
    """
    found: list[Copy] = []
    copies: dict[int, Tensor] = {}
    for module in dict.fromkeys(module for part in parts for module in part.modules()):
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is not None and waits(tensor):
                    if id(tensor) not in copies:
                        copies[id(tensor)] = (copy or _copy)(tensor, device)
                    found.append(Copy(own, name, tensor, copies[id(tensor)]))
    return found


@contextmanager
def in_place(copies: list[Copy]) -> Iterator[None]:
    """Inside, the copies are in the weights' places, and the list is empty: nothing but the modules holds them, and a
    graph that is built inside, until its backward pass is done with them. So gradients go through as they do without.
    """
    homes = [(copy.own, copy.name, copy.home) for copy in copies]
    try:
        while copies:
            _put(copies.pop())
        yield
    finally:
        for own, name, tensor in homes:
            own[name] = tensor


def _put(copy: Copy) -> None:
    copy.own[copy.name] = copy.there


@contextmanager
def onloaded(
    parts: Iterable[nn.Module], device: torch.device, copy: Callable[[Tensor, torch.device], Tensor] | None = None
) -> Iterator[None]:
    """Inside, the weights of `parts`, which are frozen, are on `device` (by `copy`); outside, where they were.

    Copies take the weights' places and are dropped afterwards: nothing is copied back.
    """
    with in_place(fetched(parts, device, copy)):
        yield


def place(model: VideoModel, device: torch.device, *, offload: bool) -> None:
    """Move the model's parts to `device`; those that are offloaded, and blocks that wait, stay where they are."""
    model.move_networks(device)
    for name, part in model.pipeline.components.items():
        if isinstance(part, nn.Module) and name not in model.networks and not (offload and name.startswith(OFFLOADED)):
            part.to(device)


ENCODERS = {"encode_prompts": "text_encoder", "encode_texts": "text_encoder", "encode_images": "image_encoder"}
AUTOENCODER = {"encode": "vae", "decode_clip": "vae"}


def offload(model: VideoModel) -> None:
    """Let the model's encoders of texts and pictures and its autoencoder be on its device only while they are used."""
    _lend(model, {**ENCODERS, **AUTOENCODER})


def lend_autoencoder(model: VideoModel) -> None:
    """Move the model's autoencoder to the machine's memory, from where it comes for each use."""
    model.pipeline.vae.to("cpu")
    _lend(model, AUTOENCODER)


def _lend(model: VideoModel, used: dict[str, str]) -> None:
    """Let parts be on the model's device while one of its methods runs: `used` says which parts, by the beginning of
    their names.
    """

    def there(beginning: str) -> list[nn.Module]:
        parts = model.pipeline.components.items()
        return [part for name, part in parts if name.startswith(beginning) and isinstance(part, nn.Module)]

    for method, beginning in used.items():
        setattr(model, method, _with(partial(there, beginning), lambda: model.device, getattr(model, method)))


def offload_module(module: nn.Module, device: torch.device) -> None:
    """Let a frozen `module` be on `device` only during its calls."""
    module.forward = _with(lambda: [module], lambda: device, module.forward)


def _with(
    needed: Callable[[], list[nn.Module]], device: Callable[[], torch.device], function: Callable[P, R]
) -> Callable[P, R]:
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        parts = needed()
        with onloaded(parts, device()):
            try:
                return function(*args, **kwargs)
            finally:
                for part in parts:  # a recomputation that stops early leaves features, which hold graph and weights
                    clear = getattr(part, "clear_cache", None)
                    if callable(clear):
                        clear()

    return call


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    copy = tensor.detach().to(device)
    return nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy
