"""A call that runs again when its gradient comes, and keeps its inputs alone.

As torch's checkpoint, but the inputs are kept by the graph's own means, so that they can wait elsewhere until then
(`models.activations`): what a decoder remembers from call to call is soon larger than one call's graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_flatten, tree_unflatten

Run = Callable[[], Any]


class Plainly:
    """How the two runs of a call are made: as they are. A plan has a way of its own (`planning.repeats`)."""

    def forward(self, run: Run) -> Any:
        """The result of the run without graph."""
        return run()

    def backward(self, wanted: Any, run: Run) -> Any:
        """The gradients; `wanted` says which there are of the outputs, and which are asked for."""
        return run()


def run_again(call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], way: Plainly) -> Any:
    """The result of `call`, which has no gradient but in the tensors among its arguments."""
    leaves, structure = tree_flatten((tuple(args), dict(kwargs)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    kept = [_TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves]  # the tensors only the graph may hold

    def run(given: Sequence[Tensor]) -> tuple[list[Any], _Form]:
        rest = iter(given)
        again_args, again_kwargs = tree_unflatten([next(rest) if leaf is _TENSOR else leaf for leaf in kept], structure)
        found, form = tree_flatten(call(*again_args, **again_kwargs))
        return found, _Form(form)

    made = _Again(run, way)
    rest = iter(_AgainFunction.apply(made, *tensors))
    return tree_unflatten([next(rest) if one is _TENSOR else one for one in made.leaves], made.form.structure)


_TENSOR = object()
"""Where there is a tensor."""


class _Form:
    """The structure of a result, which holds no tensor."""

    def __init__(self, structure: Any) -> None:
        self.structure = structure


class _Again:
    """Both runs of a call, and the form of its result."""

    leaves: list[Any]
    form: _Form

    def __init__(self, run: Callable[[Sequence[Tensor]], tuple[list[Any], _Form]], way: Plainly) -> None:
        self._run, self._way = run, way

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found, self.form = self._way.forward(lambda: self._run(tensors))
        self.leaves = [_TENSOR if isinstance(one, Tensor) else one for one in found]
        return tuple(one for one in found if isinstance(one, Tensor))

    def backward(
        self, tensors: Sequence[Tensor], asked: Sequence[bool], grads: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        def one() -> list[Tensor | None]:
            with torch.enable_grad(), _kept_here():
                inputs = [one.detach().requires_grad_(wanted) for one, wanted in zip(tensors, asked, strict=True)]
                found = [leaf for leaf in self._run(inputs)[0] if isinstance(leaf, Tensor)]
            ends = [(leaf, grad) for leaf, grad in zip(found, grads, strict=True) if grad is not None]
            made = torch.autograd.grad(
                [leaf for leaf, _ in ends],
                [tensor for tensor in inputs if tensor.requires_grad],
                [grad for _, grad in ends],
                allow_unused=True,
            )
            rest = iter(made)
            return [next(rest) if tensor.requires_grad else None for tensor in inputs]

        found: list[Tensor | None] = self._way.backward((tuple(grad is not None for grad in grads), tuple(asked)), one)
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


def _kept_here() -> saved_tensors_hooks:
    """A graph that is used at once does not wait elsewhere, whatever the outer one does."""
    return saved_tensors_hooks(lambda tensor: tensor.detach(), lambda tensor: tensor)
