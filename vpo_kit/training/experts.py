"""The one of two experts that learnt: an optimiser step changes one only if a time of its range was drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vpo_kit.training.lora import LoraPolicy, file_name, part_of

LOGGED = "updated_"
"""What stands before an expert's name in a row of the log: 1 where the step had a gradient for it, else 0."""


def updated(groups: Mapping[str, Sequence[nn.Parameter]]) -> dict[str, float]:
    """What the log says of a step, taken before the gradients are gone; nothing where one network alone is trained."""
    if len(groups) < 2:
        return {}
    return {LOGGED + name: float(any(_moves(parameter) for parameter in own)) for name, own in groups.items()}


def counts(rows: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """How many of a run's steps had a gradient for each expert; nothing where a row does not say so."""
    names = [key for key in rows[0] if key.startswith(LOGGED)] if rows else []
    if not all(name in row for row in rows for name in names):
        return {}
    return {name.removeprefix(LOGGED): sum(int(row[name]) for row in rows) for name in names}


def unchanged(policy: LoraPolicy, updates: Mapping[str, int]) -> list[str]:
    """A line for each of several experts whose file, as the policy is now, changes nothing."""
    if len(policy.networks) < 2:
        return []
    state, found = policy.state(), []
    for name in policy.networks:
        prefix = policy.model.prefix(name)
        own = part_of(state, prefix)
        if _learnt(own, part_of(policy.start, prefix) if policy.start else None):
            continue
        expert, start = policy.model.experts[name], "the LoRA that the run began with" if policy.start else "zeros"
        number = updates.get(expert)
        why = "what is kept is from before its first update" if number else "it got no update"
        found.append(
            f"{expert}: {why}, and {file_name(policy.model, name)} holds {start}: train longer, or "
            "give it a larger share of the draws (method.times.experts)"
        )
    return found


def _moves(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


def _learnt(own: Mapping[str, Tensor], start: Mapping[str, Tensor] | None) -> bool:
    if start is None:
        return any(bool(value.any()) for key, value in own.items() if ".lora_B." in key)
    return any(not torch.equal(value, start[key]) for key, value in own.items())
