"""Tensors without data: how weights become such, and what is answered where code asks for numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from vpo_kit.errors import ModelError

aten = torch.ops.aten


def make_fake(module: nn.Module, fake: FakeTensorMode) -> None:
    """Swap a module's weights, loaded or on the meta device, for fake ones of the same shapes."""
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is not None and not isinstance(tensor, FakeTensor):
                    table[name] = _fake(tensor, fake)  # type: ignore[assignment]


def _fake(tensor: Tensor, fake: FakeTensorMode) -> Tensor:
    if not tensor.is_meta:
        return fake.from_tensor(tensor)
    with fake:
        found = torch.empty_like(tensor, device="cpu")
    return nn.Parameter(found, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else found


def answer(func: Any, inputs: list[Tensor]) -> Any:
    """A number read from a tensor without data. True is the answer with most to do: finite, kept, not empty."""
    if func is aten._local_scalar_dense.default:
        kind = inputs[0].dtype
        return True if kind == torch.bool else 0.5 if kind.is_floating_point else 0
    return True  # comparisons of whole tensors


def choose(func: Any, args: tuple[Any, ...]) -> Any:
    """The result of an operator whose output is as large as its data say. A mask without data chooses everything.

    Raises `ModelError` for an operator that is not known here.
    """
    if func is aten.nonzero.default:
        return _indices(args[0])
    if func is aten.masked_select.default:
        return args[0][tuple(_indices(args[1].expand(args[0].shape)).unbind(1))]
    if func is not aten.index.Tensor:
        raise ModelError(f"a plan cannot be made: the size of what {func} gives depends on data")
    chosen: list[Any] = []
    for index in args[1]:
        masks = index is not None and index.dtype == torch.bool
        chosen.extend(_indices(index).unbind(1) if masks else [index])
    return aten.index.Tensor(args[0], chosen)


def _indices(mask: Tensor) -> Tensor:
    """``nonzero``, of every item where there are no data."""
    if not isinstance(mask, FakeTensor):
        return mask.nonzero()
    return torch.cartesian_prod(*[torch.arange(n) for n in mask.shape]).view(-1, mask.ndim)
