"""A method's step by itself: what the loop would hand it, and the gradient that it gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vpo_kit.methods.base import Context, Policy, StepOutput
from vpo_kit.models.encoding import PromptCache
from vpo_kit.rewards.base import Mixture, Reward


def context_of(
    policy: Policy, reward: Reward | Mixture | None = None, *, batch_size: int = 1, **changes: Any
) -> Context:
    """The context of a run of seed 0 with `batch_size` items a step, at the model's own sizes; `changes` are further
    fields of `Context`.
    """
    model = policy.model
    sampling = changes.get("sampling", model.settings)
    values: dict[str, Any] = {
        "reward": Mixture([(reward, 1.0)]) if isinstance(reward, Reward) else reward,
        "sampling": sampling,
        "negative": PromptCache(model)([sampling.negative_prompt]),
        "sampling_batch_size": 8,
        "seed": 0,
    }
    return Context(policy=policy, batch_size=batch_size, **{**values, **changes})


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
