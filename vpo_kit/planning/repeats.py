"""Passes that are alike run once: a chain of fifty steps is rehearsed in the time of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

from vpo_kit.models.again import Plainly, Run, run_again
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.rerun import remembering
from vpo_kit.planning.counting import MemoryTracker, Op
from vpo_kit.training.lora import LoraPolicy


@dataclass(frozen=True)
class _Like:
    """A tensor without data."""

    shape: torch.Size
    dtype: torch.dtype


Known = dict[Any, tuple[Counter[str], Counter[Op], Any]]
"""Each kind of pass: how far its peak is above what was there before, its operators, and what it gives."""


class Repeats:
    """A memory of what each kind of pass costs; `rows` counts the videos that go through the network.

    Rehearsals may share what is `known`; `about` is all else that the cost of a pass without a graph depends on.
    """

    def __init__(self, tracker: MemoryTracker, policy: LoraPolicy, known: Known, about: Hashable) -> None:
        self.rows = 0
        self._tracker = tracker
        self._policy = policy
        self._known = known
        self._about = about
        self._skims = False

    def once(self, name: str, call: Callable[..., Any], *, always: bool = False) -> Callable[..., Any]:
        """`call`, run once for the same shapes where no graph is built (or `always`), and then only accounted for."""

        def run(*args: Any, **kwargs: Any) -> Any:
            if torch.is_grad_enabled() and not always:
                return call(*args, **kwargs)
            key = self._about, name, *(_shape(value) for value in (*args, *kwargs.values()))
            return self._account(key, lambda: call(*args, **kwargs))

        return run

    def remembering(self, name: str, module: Any) -> None:
        """Let the calls of a part that remembers one for the next, as a causal autoencoder's, run `once`; those with a
        graph are left to `again`.
        """
        plain = module.forward
        pure = self.once(name, remembering(plain))

        @wraps(plain)
        def forward(*args: Any, **kwargs: Any) -> Any:
            cache = kwargs.get("feat_cache")
            if torch.is_grad_enabled() or not isinstance(cache, list):
                return plain(*args, **kwargs)
            kept = {key: value for key, value in kwargs.items() if key != "feat_cache"}
            found, cache[:] = pure(*args, before=list(cache), **kept)
            return found

        module.forward = forward

    def again(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`call`, which runs again for its gradient: run once for the same shapes, and once more for its gradient; all
        others are accounted for like these.
        """
        key = self._about, "again", _shape([leaf for leaf in tree_leaves((args, kwargs)) if not callable(leaf)])
        return run_again(call, args, kwargs, _Counted(self._account, self._tracker, key))

    def predict(self, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A model's `predict`: as `once`, for each network and adapter."""

        def run(latents: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
            self.rows += len(latents)
            if torch.is_grad_enabled():
                return self._stand_in(latents) if self._skims else call(latents, t, conditions)
            key = self._about, "predict", self._state(t), _shape(latents), _shape(conditions)
            found: Tensor = self._account(key, lambda: call(latents, t, conditions))
            return found

        return run

    def backward(self, parts: Iterator[Tensor]) -> None:
        """A backward pass of each part in turn. They are alike: two are run, and the others accounted for like them."""

        def one() -> bool:
            part = next(parts, None)
            if part is not None:
                part.backward()  # type: ignore[no-untyped-call]
            return part is not None

        number, known = 0, Counter[Op]()
        while True:
            self._skims = number >= 2
            more, ops = self._tracker.counted(one)
            if not more:
                break
            if self._skims:
                self._tracker.ops.update(known)
            number, known = number + 1, known if self._skims else ops
        self._skims = False

    def _account(self, key: Any, call: Callable[[], Any]) -> Any:
        if key not in self._known:
            before = Counter(self._tracker.live)
            with self._tracker.phase() as peak:
                result, ops = self._tracker.counted(call)
            growth = Counter(peak)
            growth.subtract(before)
            self._known[key] = growth, ops, _outline(result)
            return result
        growth, ops, outline = self._known[key]
        self._tracker.replay(growth, ops)
        return _made(outline, self._tracker.fake)

    def _stand_in(self, like: Tensor) -> Tensor:
        """A tensor as `like`, with a graph that is as good as empty."""
        return torch.empty_like(like) * self._policy.parameters[0].flatten()[0]

    def _state(self, time: Tensor) -> Any:
        """The state of a pass: which network runs for how many rows, and with which adapter."""
        found: list[Any] = []
        for name, network in self._policy.model.networks.items():
            layer = next((m for m in network.modules() if isinstance(m, BaseTunerLayer)), None)
            adapter = None if layer is None else (layer.disable_adapters, tuple(layer.active_adapters))
            found.append((int(self._policy.model.belongs(time, name).sum()), adapter))
        return tuple(found)


class _Counted(Plainly):
    """Neither a call nor its gradient is calculated where `account` knows one with the same key."""

    def __init__(self, account: Callable[[Any, Run], Any], tracker: MemoryTracker, key: Any) -> None:
        self._account, self._tracker, self._key = account, tracker, key
        self._part = tracker.part

    def forward(self, run: Run) -> Any:
        return self._account((self._key, "forward"), run)

    def backward(self, wanted: Any, run: Run) -> Any:
        with self._tracker.scope(self._part):  # the graph built here is newer than the scopes of the forward pass
            return self._account((self._key, "backward", wanted), run)


def _outline(result: Any) -> Any:
    """What `_made` makes another one of; no tensor without data is kept alive."""
    return _Like(result.shape, result.dtype) if isinstance(result, FakeTensor) else _with(result, _outline)


def _made(outline: Any, fake: FakeTensorMode) -> Any:
    if isinstance(outline, Tensor):
        return outline.clone()
    if not isinstance(outline, _Like):
        return _with(outline, lambda part: _made(part, fake))
    with fake:
        return torch.empty(outline.shape, dtype=outline.dtype)


def _with(value: Any, change: Callable[[Any], Any]) -> Any:
    """A dataclass or a dictionary with each part changed, and anything else as it is."""
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: change(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, list | tuple):
        return type(value)(change(part) for part in value)
    return {name: change(part) for name, part in value.items()} if isinstance(value, dict) else value


def _shape(value: Any) -> Any:
    """What the cost of a pass depends on: shapes, and numbers of words."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    if isinstance(value, Conditions):
        return tuple((name, tuple(tensor.shape)) for name, tensor in value.tensors.items())
    if isinstance(value, str):
        return len(value.split())
    return tuple(map(_shape, value)) if isinstance(value, Sequence) else value
