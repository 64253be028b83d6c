"""What a graph keeps for its backward pass waits in the machine's memory (activation offload)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def kept_away(leaves: Callable[[Tensor], bool] | None = None) -> saved_tensors_hooks:
    """Inside, whatever a graph keeps goes to pinned memory of the machine, by the stream that made it, and comes back
    when the backward pass asks for it: the same bits in the same order. Weights stay, and so does what `leaves` says,
    by default what is on no GPU.

    Under gradient checkpointing the blocks' inputs are what is kept, and they go too; without it everything does, a
    tensor that several layers keep once for each.
    """
    moves = leaves or (lambda tensor: tensor.is_cuda)

    def pack(tensor: Tensor) -> tuple[torch.device, Tensor] | Tensor:
        if is_weight(tensor) or not moves(tensor):
            return tensor
        home = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        return tensor.device, home.copy_(tensor, non_blocking=True)

    def unpack(packed: tuple[torch.device, Tensor] | Tensor) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        device, home = packed
        return home.to(device, non_blocking=True)

    return saved_tensors_hooks(pack, unpack)


def is_weight(tensor: Tensor) -> bool:
    """Whether a tensor is a module's parameter, or a view of one, as the transposed weight of a linear layer is."""
    return isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter)
