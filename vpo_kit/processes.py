"""The processes of a run (one, or as many as `accelerate launch` or `torchrun` started) and what they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from torch import Tensor

T = TypeVar("T")


class Processes:
    """Rank and number of the processes, and sums over them. With one process nothing is sent anywhere."""

    def __init__(self) -> None:
        # without a GPU, Accelerate starts a process group only when it is told to use the CPU
        self._state = PartialState(cpu=not torch.cuda.is_available())
        self.rank = int(self._state.process_index)
        self.count = int(self._state.num_processes)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        self._state.wait_for_everyone()

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of a global list: every `count`-th item from its rank on."""
        return list(items[self.rank :: self.count])

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes; no gradient passes."""
        value = value.detach()
        if self.count == 1:
            return value
        found: Tensor = reduce(value.clone().to(self._state.device), "sum")
        return found.to(value.device)

    def gather(self, items: Sequence[T]) -> list[T]:
        """The items of all processes, by rank."""
        if self.count == 1:
            return list(items)
        found: list[T] = gather_object(list(items))
        return found

    def agree(self, value: T) -> T:
        """The main process's value, everywhere."""
        if self.count == 1:
            return value
        found: T = broadcast_object_list([value])[0]
        return found

    def mean(self, reports: Mapping[str, float]) -> dict[str, float]:
        """Each key's mean over the processes that have it."""
        if self.count == 1:
            return dict(reports)
        everyone = self.gather([dict(reports)])
        keys = sorted({key for report in everyone for key in report})
        values = {key: [report[key] for report in everyone if key in report] for key in keys}
        return {key: sum(found) / len(found) for key, found in values.items()}

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum each gradient over the processes, in one message: a LoRA is small, and its loss is already a share of
        the global mean. A parameter without a gradient here counts as zero.
        """
        if self.count == 1:
            return
        kept = list(parameters)
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in kept]
        flat = self.total(torch.cat([grad.flatten() for grad in grads]))
        for parameter, grad in zip(kept, torch.split(flat, [g.numel() for g in grads]), strict=True):
            parameter.grad = grad.view_as(parameter).clone()
