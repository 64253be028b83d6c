"""What all pair methods share: the errors of both members under policy and reference, and their report.

Legend: ``P`` pairs, ``T`` latent frames; latents are ``[P, C, T, h, w]``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vpo_kit import losses
from vpo_kit.losses import PairErrors, PreferenceLoss
from vpo_kit.methods.base import Policy
from vpo_kit.models.base import Conditions


def pair_errors(
    policy: Policy, first: Tensor, second: Tensor, conditions: Conditions, generator: torch.Generator
) -> tuple[PairErrors, Tensor]:
    """Per-frame errors of P pairs, and the times ``t`` ``[P]`` at which they were taken.

    Both videos and both networks see the same ``t`` and the same ``eps``; each network takes both videos in one pass.
    """
    schedule = policy.model.schedule
    count = len(first)
    t = schedule.sample_t(count, generator).to(first.device)
    eps = torch.randn(first.shape, generator=generator).to(first.device)
    x, eps2, t2 = torch.cat([first, second]), torch.cat([eps, eps]), torch.cat([t, t])
    x_t, target, time = schedule.add_noise(x, eps2, t2), schedule.target(x, eps2, t2), schedule.network_time(t2)
    both = Conditions.cat([conditions, conditions])
    with torch.no_grad(), policy.reference():
        reference = losses.frame_errors(policy.model.predict(x_t, time, both), target)
    errors = losses.frame_errors(policy.model.predict(x_t, time, both), target)
    return PairErrors(*errors.chunk(2), *reference.chunk(2)), t


def report(errors: PairErrors, labels: Tensor, loss: PreferenceLoss) -> dict[str, float]:
    """The fields that every preference method logs; `labels` ``[P]``, ties left out.

    A change is relative to the reference's error: +0.01 is one percent worse than the reference.
    """
    kept = labels != 0
    if not kept.any():
        return {}
    first = (errors.first - errors.first_ref).detach().mean(1)
    second = (errors.second - errors.second_ref).detach().mean(1)
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
