"""Tensors without data: how weights become such, and what is answered where code asks for numbers."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

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


def every_index(tensor: Tensor) -> Tensor:
    """``nonzero`` where every item counts: the most that there can be."""
    return torch.cartesian_prod(*[torch.arange(n) for n in tensor.shape]).view(-1, tensor.ndim)


def every_item(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with boolean masks that select everything as indices."""
    if func not in (aten.index.Tensor, aten.masked_select.default):
        raise NotImplementedError(f"{func}: the shape of its output depends on data that a plan does not have")
    if func is aten.masked_select.default:
        return args[0].flatten(), torch.ones(prod(args[0].shape), dtype=torch.bool)
    chosen: list[Any] = []
    for index in args[1]:
        if index is not None and index.dtype == torch.bool:
            chosen.extend(every_index(index).unbind(1))
        else:
            chosen.append(index)
    return args[0], chosen, *args[2:]
