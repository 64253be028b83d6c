"""Calls of an autoencoder that are alike are planned by one of them, and the plan is that of all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torch.utils.checkpoint import checkpoint

from vpo_kit.library import plan as command
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
    monkeypatch.setattr(
        Repeats, "again", lambda self, call, args, kwargs: checkpoint(call, *args, use_reentrant=False, **kwargs)
    )
    monkeypatch.setattr(Repeats, "remembering", lambda *_: None)
    whole = rehearse(planned, draws=1)

    def flops(one: Estimate) -> int:
        return sum(op.flops * n for op, n in one.ops["step"].items())

    # torch ends a recomputation when it has all that the gradient needs: the last layer is counted once more here
    assert 1 <= flops(found) / flops(whole) < 1.03
    assert found.phases["step"] == pytest.approx(whole.phases["step"], rel=0.02)
