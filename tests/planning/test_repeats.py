"""Calls of an autoencoder that are alike are planned by one of them, and the plan is that of all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from vpo_kit.library import plan as command
from vpo_kit.planning.again import run_again
from vpo_kit.planning.counting import MemoryTracker
from vpo_kit.planning.estimate import Estimate
from vpo_kit.planning.rehearsal import rehearse
from vpo_kit.planning.repeats import Repeats


def test_the_plan_is_that_of_all_calls(tiny_wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a reward's gradient through a causal decoder that runs again call by call, five latent frames."""
    sets = ["batch_size=1", "gradient_checkpointing=true", "sampling.frames=17", "sampling.steps=2",
            "evaluation.num_prompts=0", "method.tau=1.0"]  # fmt: skip
    recipe = command._recipe({"model": str(tiny_wan), "method": "instruct", "reward": "technical"}, None, sets)
    planned, ran = command.subject_of(recipe, 1), Counter[str]()
    account = Repeats._account

    def watched(self: Repeats, key: Any, call: Any) -> Any:
        ran["real" if key not in self._known else "replayed"] += "again" in str(key)
        return account(self, key, call)

    monkeypatch.setattr(Repeats, "_account", watched)
    found = rehearse(planned, draws=1)
    assert ran["real"] > 0 < ran["replayed"]
    monkeypatch.setattr(Repeats, "again", lambda self, *args, **kwargs: checkpoint(*args, **kwargs))
    monkeypatch.setattr(Repeats, "remembering", lambda *_: None)
    whole = rehearse(planned, draws=1)

    def flops(one: Estimate) -> int:
        return sum(op.flops * n for op, n in one.ops["step"].items())

    # torch ends a recomputation when it has all that the gradient needs: the last layer is counted once more here
    assert 1 <= flops(found) / flops(whole) < 1.03
    assert found.phases["step"] == pytest.approx(whole.phases["step"], rel=0.02)


def test_a_result_may_be_changed_in_place_though_it_is_a_view() -> None:
    """As LTX-Video's decoder gives it, whose tiles are blended in place: the gradient is that of torch's checkpoint."""

    def call(x: Tensor) -> Tensor:
        return (x**2).view(2, 2)

    def planned(x: Tensor) -> Any:
        return run_again(lambda _, call: call(), tracker, "key", call, (x,), {})

    tracker, grads = MemoryTracker(FakeTensorMode()), []
    for run in (planned, lambda x: checkpoint(call, x, use_reentrant=False)):
        x = torch.arange(1.0, 5.0, requires_grad=True)
        tile = run(x)
        tile[:, 0] = tile[:, 1] * 3
        tile.sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)
