"""What waits in the machine's memory takes none of the device's: blocks between their calls, and what a graph keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from vpo_kit.models.activations import is_weight
from vpo_kit.models.base import VideoModel, stacks
from vpo_kit.models.group_offload import Swap
from vpo_kit.planning.counting import MemoryTracker
from vpo_kit.training.lora import added_weights


def waiting(model: VideoModel) -> set[int]:
    """The ids of the frozen weights in the stacks of blocks of the model's networks."""
    found: set[int] = set()
    for network in model.networks.values():
        blocks = [tensor for stack in stacks(network).values() for tensor in (*stack.parameters(), *stack.buffers())]
        found |= {id(tensor) for tensor in blocks} - {id(tensor) for tensor in added_weights(network)}
    return found


def swap(model: VideoModel, weights: set[int], tracker: MemoryTracker) -> None:
    """Let the `weights` of blocks come as in a real run, those of one block at a time, and of the next one."""

    def copy(tensor: Tensor, _: torch.device) -> Tensor:
        with tracker.scope("weights"):
            return copied(tensor)

    for network in model.networks.values():
        blocks = [block for stack in stacks(network).values() for block in stack]
        Swap(blocks, lambda: model.device, ahead=True, copy=copy, waits=lambda tensor: id(tensor) in weights)


def kept_nowhere() -> saved_tensors_hooks:
    """What the graph keeps counts nowhere, and comes back as another (`models.activations.kept_away`)."""

    def pack(tensor: Tensor) -> Any:
        return tensor if is_weight(tensor) else (tensor.size(), tensor.stride(), tensor.dtype, tensor.device)

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        size, stride, dtype, device = packed
        return torch.empty_strided(size, stride, dtype=dtype, device=device)

    return saved_tensors_hooks(pack, unpack)


def copied(tensor: Tensor) -> Tensor:
    """A frozen weight's copy."""
    copy = torch.empty_like(tensor, requires_grad=False)
    return nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy
