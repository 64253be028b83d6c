"""The network's blocks wait in the machine's memory, and each is on the GPU while it runs (block swap).

Diffusers' own group offload is for sampling alone. It moves a block's weights under the graph's hands: a backward pass
meets them on the wrong device, and with gradient checkpointing a block that has run again stays on the GPU, as what
offloads it comes after what ends the recomputation. It moves the LoRA along, and with a stream puts back the LoRA that
was there at the start. Here copies take the places of a block's frozen weights, as in `models.offload`: what has to be
kept for a backward pass keeps its copy, and the LoRA stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from vpo_kit.errors import ConfigError
from vpo_kit.models.base import VideoModel, stacks
from vpo_kit.models.offload import Copy, fetched, in_place


def check_group_offload(on: bool, *, quantise: str) -> None:
    """Raises `ConfigError` for what group offload cannot be combined with."""
    if on and quantise in ("int8", "nf4"):
        raise ConfigError(f"group_offload: weights in {quantise} cannot wait elsewhere: use quantise=fp8 or none")


def check_family(on: bool, model: VideoModel) -> None:
    """Raises `ConfigError` where a network is no stack of blocks that run again as a whole."""
    for network in model.networks.values() if on else ():
        if model.network_name != "transformer" or not stacks(network):
            raise ConfigError(
                f"group_offload: {type(network).__name__} is no stack of blocks that run one by one: leave it out"
            )


def group_offload(model: VideoModel) -> None:
    """Let the blocks of the model's networks be on its device only while they run, the next on its way meanwhile. Where
    there is one device nothing changes. Raises `ConfigError` for a family that has no such blocks.
    """
    check_family(True, model)
    cuda = model.device.type == "cuda"
    side = torch.cuda.Stream() if cuda else None  # type: ignore[no-untyped-call]
    for network in model.networks.values():
        blocks = [block for stack in stacks(network).values() for block in stack]
        for tensor in (value for block in blocks for value in (*block.parameters(), *block.buffers())):
            if cuda and tensor.device.type == "cpu":
                tensor.data = tensor.data.pin_memory()
        Swap(blocks, lambda: model.device, side=side, ahead=cuda)


class Swap:
    """The `blocks` of a network, in the order in which they run; those of their weights that wait (`waits`) are copied
    for each call. With `ahead` the block that comes next, in a recomputation that before, is sent for while one runs,
    on the stream `side` where there is one.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        device: Callable[[], torch.device],
        *,
        side: Any = None,
        ahead: bool = False,
        copy: Callable[[Tensor, torch.device], Tensor] | None = None,
        waits: Callable[[Tensor], bool] | None = None,
    ) -> None:
        self._blocks, self._device, self._side, self._goes_ahead = list(blocks), device, side, ahead
        self._copy, self._waits = copy or (lambda *where: _sent(*where)), waits
        self._sent: dict[int, list[Copy]] = {}
        self._last = -1
        self._end: Any = None
        for i, block in enumerate(self._blocks):
            block.forward = self._with_weights(i, block.forward)

    def _with_weights(self, i: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            with in_place(self._take(i)):
                try:
                    return forward(*args, **kwargs)
                finally:  # a recomputation may end by an exception, before the block does
                    self._send_next(i)

        return run

    def _take(self, i: int) -> list[Copy]:
        copies = self._sent.pop(i, None)
        self._sent.clear()
        if copies is None:
            return self._fetch(i)
        if self._side is not None:
            current = torch.cuda.current_stream()
            current.wait_stream(self._side)
            for copy in copies:
                copy.there.record_stream(current)
        return copies

    def _send_next(self, i: int) -> None:
        following, self._last = _following(i, self._last, len(self._blocks)), i
        if self._side is not None:  # two blocks at a time, however far the processor is ahead of the GPU
            if self._end is not None:
                self._end.synchronize()
            self._end = torch.cuda.current_stream().record_event()
        if self._goes_ahead and following is not None:
            with torch.cuda.stream(self._side):  # of None nothing happens
                self._sent = {following: self._fetch(following)}

    def _fetch(self, i: int) -> list[Copy]:
        device = self._device()  # asked once: diffusers goes through a whole network for it
        return fetched([self._blocks[i]], device, self._copy, self._waits or (lambda one: _elsewhere(one, device)))


def _following(i: int, last: int, count: int) -> int | None:
    """The block that runs after block `i`, which came after block `last`, of `count`: they run in order, and again in
    the other order for a backward pass. None where nobody can know; a wrong guess costs time and nothing else.
    """
    step = i - last if abs(i - last) == 1 else 1 if i == 0 else -1
    return i + step if 0 <= i + step < count else None


def _elsewhere(tensor: Tensor, device: torch.device) -> bool:
    return tensor.device != device


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    copy = tensor.detach().to(device, non_blocking=device.type == "cuda" and tensor.is_pinned())
    return nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy
