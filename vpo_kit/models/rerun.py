"""Autoencoders' decoders run again in the backward pass, one call at a time.

A causal autoencoder decodes a few latent frames in a call, and one of a tile where tiling is on: with every call's
graph built anew when its gradient comes, no more than one of them is held. What a call remembers for the next one is
handed through, so the gradient is that of all calls together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from vpo_kit.models.again import Plainly, run_again

Places = list[tuple[dict[str, Any], str, Tensor]]
"""Where weights are, and which."""


Way = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Runs a call with its arguments, now and again for its gradient."""
_ways: list[Way] = [lambda call, args, kwargs: run_again(call, args, kwargs, Plainly())]


@contextmanager
def by(way: Way) -> Iterator[None]:
    """Inside, calls run by `way`: plans count those that are alike once."""
    _ways.append(way)
    try:
        yield
    finally:
        _ways.pop()


def remembering(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A call that takes what the last one remembered as `before`, and gives its result and what it remembers itself."""

    def call(*args: Any, before: list[Any], feat_idx: Any = None, **kwargs: Any) -> Any:
        after, place = list(before), [0]  # both are changed by the call
        found = plain(*args, feat_cache=after, feat_idx=place, **kwargs)
        return found, after

    return call


def rerun(decoder: nn.Module) -> None:
    """Let each call of a frozen `decoder` keep its inputs alone, where a gradient is wanted. The gradient is the same;
    the price is one more pass through the decoder.
    """
    plain: Callable[..., Any] = decoder.forward

    @wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(*args, **kwargs)
        there = _places(decoder)  # an offloaded decoder's weights are elsewhere again when the gradient comes
        cache = kwargs.pop("feat_cache", None)
        if not isinstance(cache, list):
            kept = {} if cache is None else {"feat_cache": cache}
            return _ways[-1](_with(there, plain), args, {**kept, **kwargs})
        call = _with(there, remembering(plain))
        found, cache[:] = _ways[-1](call, args, {"before": list(cache), **kwargs})
        return found

    decoder.forward = forward


def _with(there: Places, call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with _placed(there):
            return call(*args, **kwargs)

    return run


def _places(module: nn.Module) -> Places:
    return [
        (own, name, tensor)
        for part in module.modules()
        for own in (part._parameters, part._buffers)
        for name, tensor in own.items()
        if tensor is not None
    ]


@contextmanager
def _placed(there: Places) -> Iterator[None]:
    before = [own[name] for own, name, _ in there]
    for own, name, tensor in there:
        own[name] = tensor
    try:
        yield
    finally:
        for (own, name, _), tensor in zip(there, before, strict=True):
            own[name] = tensor
