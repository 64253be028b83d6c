"""What all pair methods share: noise both members alike, take both networks' errors, turn them into loss and report.

Legend: ``P`` pairs, ``T`` latent frames; latents are ``[P, C, T, h, w]``, errors ``[P, T]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit import losses
from vpo_kit.losses import PairErrors, PreferenceConfig, PreferenceLoss
from vpo_kit.methods.base import MethodConfig, Policy, StepOutput
from vpo_kit.models.base import Conditions
from vpo_kit.processes import Processes
from vpo_kit.sampler import draw_noise, draw_times

LossOf = Callable[[PairErrors], tuple[Tensor, dict[str, float]]]


class PairConfig(MethodConfig, PreferenceConfig):
    """Settings that every pair method has: those of the loss, and how its passes are made."""

    num_draws: int = Field(1, ge=1, description="draws of (t, noise) for each pair and step; not in the papers")
    low_memory: bool = Field(
        False, description="hold the graph of one video at a time: the same gradient for one more pass without graph"
    )


@dataclass(frozen=True)
class Noised:
    """Both members of P pairs at the same ``t`` ``[P]`` and the same noise; all else is firsts, then seconds."""

    x_t: Tensor
    target: Tensor
    time: Tensor
    conditions: Conditions
    t: Tensor

    def rows(self, index: slice) -> tuple[Tensor, Tensor, Tensor, Conditions]:
        return self.x_t[index], self.target[index], self.time[index], self.conditions[index]


def noised(policy: Policy, first: Tensor, second: Tensor, conditions: Conditions, seeds: Sequence[int]) -> Noised:
    """Noise P pairs, to times at which the policy is trained; the time and the noise of a pair depend on its own seed
    alone, whatever the batch.
    """
    schedule = policy.model.schedule
    t = draw_times(schedule, seeds, first.device, wanted=policy.trains)
    eps = draw_noise(first.shape[1:], seeds, first.device)
    x, eps2, t2 = torch.cat([first, second]), torch.cat([eps, eps]), torch.cat([t, t])
    return Noised(
        schedule.add_noise(x, eps2, t2),
        schedule.target(x, eps2, t2),
        schedule.network_time(t2),
        Conditions.cat([conditions, conditions]),
        t,
    )


def errors_of(policy: Policy, pairs: Noised) -> tuple[Tensor, Tensor]:
    """Errors ``[P, T]`` of firsts and seconds under the model as it is, all videos in one pass."""
    first, second = _errors(policy, pairs, slice(None)).chunk(2)
    return first, second


def reference_errors(policy: Policy, pairs: Noised) -> tuple[Tensor, Tensor]:
    """`errors_of` the reference, without graph."""
    with torch.no_grad(), policy.reference():
        return errors_of(policy, pairs)


def step_output(
    policy: Policy,
    pairs: Noised,
    reference: tuple[Tensor, Tensor],
    loss_of: LossOf,
    processes: Processes,
    *,
    low_memory: bool,
) -> StepOutput:
    """Loss and report of one step.

    The loss sees the networks through the errors alone, so ``dL = sum c dE`` with ``c = dL/dE`` known once the errors
    are. With `low_memory` the errors come from a pass without graph, and each video then gets a backward pass of its
    own with its ``c``: exact, and one graph at a time.
    """
    if not low_memory:
        loss, report = loss_of(PairErrors(*errors_of(policy, pairs), *reference))
        return StepOutput(loss, report)
    with torch.no_grad():
        first, second = (errors.clone() for errors in errors_of(policy, pairs))
    leaves = first.requires_grad_(), second.requires_grad_()
    with torch.enable_grad():
        loss, report = loss_of(PairErrors(*leaves, *reference))
    weights = torch.cat(torch.autograd.grad(loss, leaves, materialize_grads=True))

    def parts() -> Iterator[Tensor]:
        rows = weights.abs().sum(1).nonzero().flatten().tolist()
        fillers = processes.lockstep(len(rows)) - len(rows)
        for i in rows:
            yield (weights[i] * _errors(policy, pairs, slice(i, i + 1))).sum()
        for _ in range(fillers):
            yield 0 * _errors(policy, pairs, slice(1)).sum()

    return StepOutput(loss.detach(), report, parts())


def report(errors: PairErrors, labels: Tensor, loss: PreferenceLoss) -> dict[str, float]:
    """The fields that every preference method logs; `labels` ``[P]`` or ``[P, T]``, ties left out.

    A change is relative to the reference's error: +0.01 is one percent worse than the reference.
    """
    kept = labels != 0
    if not kept.any():
        return {}
    first = (errors.first - errors.first_ref).detach()
    second = (errors.second - errors.second_ref).detach()
    if labels.ndim == 1:
        first, second = first.mean(1), second.mean(1)
    winner = torch.where(labels > 0, first, second)[kept]
    loser = torch.where(labels > 0, second, first)[kept]
    scale = errors.first_ref.mean().clamp_min(1e-12)
    logit = loss.logit.detach()[loss.weight > 0]
    return {
        "implicit_accuracy": float((winner < loser).float().mean()),
        "margin": float(logit.mean()),
        "winner_error_change": float(winner.mean() / scale),
        "loser_error_change": float(loser.mean() / scale),
        "gradient_factor": float(losses.gradient_factor(logit).mean()),
    }


def _errors(policy: Policy, pairs: Noised, index: slice) -> Tensor:
    x_t, target, time, conditions = pairs.rows(index)
    return losses.frame_errors(policy.model.predict(x_t, time, conditions), target)
