"""The processes of a run (one, or as many as `accelerate launch` or `torchrun` started) and what they share.

How a run is spread follows from how it is launched, that is from environment variables, and from nothing in a recipe.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from torch import Tensor, nn
from torch.distributed import DistError
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

from vpo_kit.errors import ConfigError, LostProcessError, first_line

T = TypeVar("T")

TIMEOUT = 600
"""Seconds that a process waits for the others, unless VPO_TIMEOUT says otherwise: a checkpoint's writing, or the
slowest reward of a step, must fit in.
"""


class Processes:
    """Rank and number of the processes, and sums over them. With one process nothing is sent anywhere.

    `sharded` says that the frozen base is split over the processes (FSDP2): then a pass through it needs all of them,
    and all must make the same number of passes. Raises `ConfigError` for a kind of launch that is not supported.
    """

    def __init__(self) -> None:
        # without a GPU, Accelerate starts a process group only when it is told to use the CPU
        try:
            self._state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(seconds=_timeout()))
        except DistError as error:
            raise LostProcessError(f"cannot reach the other processes: {first_line(error)}") from error
        self.rank = int(self._state.process_index)
        self.count = int(self._state.num_processes)
        self.sharded = _fsdp() and self.count > 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        self._state.wait_for_everyone()

    def main_first(self, work: Callable[[], T]) -> T:
        """`work` of every process, the main one's first: the others find on disk what it keeps there."""
        if not self.is_main:
            self.wait()
        try:
            return work()
        finally:
            if self.is_main:
                self.wait()

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

    def mean(self, reports: Mapping[str, float], weight: float = 1.0) -> dict[str, float]:
        """Each key's mean over the processes that have it, each with its own `weight`."""
        if self.count == 1:
            return dict(reports)
        everyone = [(report, own) for report, own in self.gather([(dict(reports), weight)]) if own > 0]
        keys = sorted({key for report, _ in everyone for key in report})
        values = {key: [(report[key], weight) for report, weight in everyone if key in report] for key in keys}
        return {key: sum(v * w for v, w in found) / sum(w for _, w in found) for key, found in values.items()}

    def lockstep(self, passes: int) -> int:
        """How many passes this process must make that has `passes` of its own: with a sharded base as many as the
        process that has the most, the rest with weight zero. All processes must ask.
        """
        return max(self.gather([passes])) if self.sharded else passes

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum each gradient over the processes, in one message: a LoRA is small, and its loss is already a share of
        the global mean. A parameter without a gradient here counts as zero; one that has none anywhere keeps none, and
        the optimiser leaves it alone, as in a single process.
        """
        if self.count == 1:
            return
        kept = list(parameters)
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in kept]
        known = grads[0].new_tensor([float(p.grad is not None) for p in kept])
        found = self.total(torch.cat([*(grad.flatten() for grad in grads), known]))
        sizes = [*(grad.numel() for grad in grads), len(kept)]
        *summed, known = found.split(sizes)  # type: ignore[no-untyped-call]
        for parameter, grad, any_has in zip(kept, summed, known.tolist(), strict=True):
            parameter.grad = grad.view_as(parameter).clone() if any_has else None

    def shard(self, network: nn.Module, whole: Iterable[nn.Parameter]) -> None:
        """Split `network`'s weights over the processes where the launch asks for it; those in `whole` stay whole.

        Frozen weights have no gradients to exchange, so machines need not share: each holds the network once.
        """
        if not self.sharded:
            return
        mesh, ignored, name = self._mesh(), set(whole), type(network).__name__
        for module in [*_blocks(network), network]:
            # the root too, against the default: what is left of a pass must be the same in every process, and asking
            # for a state dict, which the first one does alone, gives the weights back
            fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=ignored)
        type(network).__name__ = name  # torch puts FSDP before it, and diffusers finds a class by its name

    def _mesh(self) -> DeviceMesh:
        """The processes of this machine, or all where there is one on each."""
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if local == 1 or self.count % local:
            local = self.count
        return init_device_mesh(
            self._state.device.type, (self.count // local, local), mesh_dim_names=("machine", "process")
        )["process"]

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Raises `LostProcessError` where work in common fails because another process has gone or is silent."""
        try:
            yield
        except RuntimeError as error:
            # gloo's own errors have no class
            if self.count == 1 or not (isinstance(error, DistError) or "gloo" in str(error)):
                raise
            raise LostProcessError(
                f"process {self.rank} of {self.count} lost another one, which died or was silent for {_timeout()} s: "
                "the reason is in that one's output; --resume goes on from the last checkpoint"
            ) from error


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists of layers: they run one after the other, and one is whole at a time."""
    for child in module.children():
        found = child if isinstance(child, nn.ModuleList) else _blocks(child)
        yield from (block for block in found if next(block.parameters(), None) is not None)


def _fsdp() -> bool:
    """Whether `accelerate launch` was told to shard; its choices arrive as environment variables."""

    def flag(name: str) -> bool:
        return os.environ.get(name, "false").lower() in ("true", "1")

    if flag("ACCELERATE_USE_DEEPSPEED") or flag("ACCELERATE_USE_MEGATRON_LM"):
        raise ConfigError("DeepSpeed and Megatron-LM are not supported: launch with configs/accelerate/8gpu-fsdp2.yaml")
    if not flag("ACCELERATE_USE_FSDP"):
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("FSDP 1 is not supported: set fsdp_version: 2 in Accelerate's config file")
    if flag("FSDP_OFFLOAD_PARAMS"):
        raise ConfigError("fsdp_offload_params is not supported: set it to false in Accelerate's config file")
    # Accelerate's default; transformers then reads the text encoder's weights in the first process alone, and waits
    # for Accelerate to hand on a model that is never given to it
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    return True


def _timeout() -> int:
    text = os.environ.get("VPO_TIMEOUT", str(TIMEOUT))
    if not text.isdecimal() or int(text) == 0:
        raise ConfigError(f"VPO_TIMEOUT={text}: give whole seconds above zero")
    return int(text)
