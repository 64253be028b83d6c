"""A method's step by itself: what the loop would hand it, and the gradient that it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vpo_kit import config
from vpo_kit.methods.base import Context, StepOutput
from vpo_kit.models.encoding import PromptCache
from vpo_kit.rewards.base import Mixture, Reward
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.run import Assembly


def context_of(
    policy: LoraPolicy, reward: Reward | Mixture | None = None, *, batch_size: int = 1, **changes: Any
) -> Context:
    """The context of a run of seed 0 with `batch_size` items a step, at the model's own sizes; `changes` are further
    fields of `Context`.
    """
    model = policy.model
    parts = Assembly(
        run=config.build({"batch_size": batch_size, "sampling": {"batch_size": 8}}),
        policy=policy,
        settings=changes.get("sampling", model.settings),
        encode=PromptCache(model),
    )
    mixture = Mixture([(reward, 1.0)]) if isinstance(reward, Reward) else reward
    return replace(parts.context(mixture), **changes)


def gradients(output: StepOutput, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The gradient of a step in each parameter, zeros where it has none; older gradients are dropped."""
    for parameter in parameters:
        parameter.grad = None
    parts = output.parts
    if parts is None:
        assert output.loss is not None
        parts = [output.loss]
    for part in parts:
        part.backward()  # type: ignore[no-untyped-call]
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
