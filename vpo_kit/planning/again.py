"""A call that runs again when its gradient comes, as under torch's checkpoint, with both runs accounted for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from vpo_kit.planning.counting import MemoryTracker

Account = Callable[[Any, Callable[[], Any]], Any]
"""Runs a call, or what stands for it where one with the same key has been run."""


def run_again(
    account: Account,
    tracker: MemoryTracker,
    key: Any,
    call: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """The result of `call`; neither it nor its gradient is calculated where `account` knows one with the same key."""
    leaves, structure = tree_flatten((tuple(args), dict(kwargs)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def run(given: Sequence[Tensor]) -> tuple[list[Any], _Form]:
        rest = iter(given)
        again_args, again_kwargs = tree_unflatten(
            [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure
        )
        found, form = tree_flatten(call(*again_args, **again_kwargs))
        return found, _Form(form)

    made = _Again(account, tracker, key, run)
    rest = iter(_AgainFunction.apply(made, *tensors))
    return tree_unflatten([next(rest) if one is _TENSOR else one for one in made.leaves], made.form.structure)


_TENSOR = object()
"""Where a result has a tensor."""


class _Form:
    """The structure of a result, which holds no tensor."""

    def __init__(self, structure: Any) -> None:
        self.structure = structure


class _Again:
    """What a call that is run again in the backward pass costs, there and here; and the form of its result."""

    leaves: list[Any]
    form: _Form

    def __init__(
        self,
        account: Account,
        tracker: MemoryTracker,
        key: Any,
        run: Callable[[Sequence[Tensor]], tuple[list[Any], _Form]],
    ) -> None:
        self._account, self._tracker, self._key, self._run = account, tracker, key, run
        self._part = tracker.part

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found, self.form = self._account((self._key, "forward"), lambda: self._run(tensors))
        self.leaves = [_TENSOR if isinstance(one, Tensor) else one for one in found]
        return tuple(one for one in found if isinstance(one, Tensor))

    def backward(
        self, tensors: Sequence[Tensor], wanted: Sequence[bool], grads: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        def one() -> list[Tensor | None]:
            with torch.enable_grad():
                inputs = [one.detach().requires_grad_(asked) for one, asked in zip(tensors, wanted, strict=True)]
                found = [leaf for leaf in self._run(inputs)[0] if isinstance(leaf, Tensor)]
                ends = [(leaf, grad) for leaf, grad in zip(found, grads, strict=True) if grad is not None]
                asked_for = [tensor for tensor in inputs if tensor.requires_grad]
                made = torch.autograd.grad(
                    [leaf for leaf, _ in ends], asked_for, [grad for _, grad in ends], allow_unused=True
                )
            rest = iter(made)
            return [next(rest) if tensor.requires_grad else None for tensor in inputs]

        there = tuple(grad is not None for grad in grads), tuple(wanted)
        with self._tracker.scope(
            self._part
        ):  # the graph that is built here is newer than the scopes of the forward pass
            found: list[Tensor | None] = self._account((self._key, "backward", there), one)
        return found


class _AgainFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, made: _Again, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.made = made
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        # autograd lets nobody change a view in place that a function gave, and tiles are blended in place
        return tuple(one.clone() if one._is_view() else one for one in made.forward(tensors))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return (None, *ctx.made.backward(ctx.saved_tensors, ctx.needs_input_grad[1:], grads))
