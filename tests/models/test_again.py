"""A call that runs again has the gradient of torch's checkpoint, and what it keeps can wait elsewhere."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vpo_kit.models.activations import kept_away
from vpo_kit.models.again import Plainly, run_again


def again(call: Any, *args: Any, **kwargs: Any) -> Any:
    return run_again(call, args, kwargs, Plainly())


def test_a_result_may_be_changed_in_place_though_it_is_a_view() -> None:
    """As LTX-Video's decoder gives it, whose tiles are blended in place: the gradient is that of torch's checkpoint."""

    def call(x: Tensor) -> Tensor:
        return (x**2).view(2, 2)

    grads = []
    for run in (again, lambda call, x: checkpoint(call, x, use_reentrant=False)):
        x = torch.arange(1.0, 5.0, requires_grad=True)
        tile = run(call, x)
        tile[:, 0] = tile[:, 1] * 3
        tile.sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


def test_what_is_handed_from_call_to_call_waits_elsewhere() -> None:
    """Calls that remember the last one's result, as a causal decoder's: with what they keep in the machine's memory the
    gradient is the same, nothing of it is held meanwhile, and what is built in the backward pass stays where it is.
    """

    def call(x: Tensor, before: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        made = (x * before[0]).tanh()
        return made.sum(), [made * 2]

    def run(*, away: bool) -> tuple[Tensor, list[bool], int]:
        x = torch.linspace(0.1, 1, 7, requires_grad=True)
        memory, total, seen, moved = [torch.ones(7)], torch.zeros(()), [], 0

        def leaves(_: Tensor) -> bool:
            nonlocal moved
            moved += 1
            return away

        with kept_away(leaves):
            for _ in range(4):
                value, memory = again(call, x, before=memory)
                total = total + value
                seen.append(weakref.ref(memory[0]))
            del memory, value
            gc.collect()
            held, asked = [one() is not None for one in seen], moved
            total.backward()
        assert x.grad is not None
        assert moved == asked, "the graph of the backward pass went away too"
        return x.grad, held, asked

    here, there = run(away=False), run(away=True)
    assert torch.equal(here[0], there[0])
    assert here[1] == [True, True, True, False]  # the last is handed to nobody
    assert there[1] == [False] * 4
