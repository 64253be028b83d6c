"""Stacks of like blocks: one stands for all but the first and the last, so that a deep network is planned in the time
of three.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

from vpo_kit.planning.counting import MemoryTracker

LEAST = 4
"""Blocks from which on a stack is folded."""


def fold(network: nn.Module) -> dict[nn.Module, int]:
    """Leave three blocks of each run of like ones in the stacks of `network`, of which the middle one stands for all
    but the first and the last. Returns how many it stands for.

    The first needs less than the others, as nothing before it carries a gradient; the last keeps what comes out of
    those before it, as each of them does of its neighbour.
    """
    found: dict[nn.Module, int] = {}
    for name, stack in network.named_children():
        if isinstance(stack, nn.ModuleList):
            kept: list[nn.Module] = []
            for run in _runs(list(stack)):
                kept += run if len(run) < LEAST else [run[0], run[1], run[-1]]
                found |= {run[1]: len(run) - 2} if len(run) >= LEAST else {}
            setattr(network, name, nn.ModuleList(kept))
    return found


def watch(blocks: dict[nn.Module, int], tracker: MemoryTracker) -> None:
    """Count what each of `blocks` does as often as it stands for."""
    for block, count in blocks.items():
        block.forward = _counted(block.forward, count, tracker)


def _counted(call: Callable[..., Any], count: int, tracker: MemoryTracker) -> Callable[..., Any]:
    @wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        with tracker.standing(count):
            return call(*args, **kwargs)

    return run


def _runs(blocks: list[nn.Module]) -> list[list[nn.Module]]:
    """Neighbours of one class, with weights of the same names and shapes."""
    runs: list[list[nn.Module]] = []
    for block in blocks:
        if runs and _signature(runs[-1][0]) == _signature(block):
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


def _signature(block: nn.Module) -> Any:
    return type(block), [(name, value.shape, value.dtype) for name, value in block.state_dict().items()]
