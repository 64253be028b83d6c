"""The learning rate of a step: a linear warm-up, then constant or falling to zero at the run's end.

A function of the step and of how much of the budget is spent, and of nothing that has to be kept: a resumed run has the
rates of an undisturbed one (where seconds are the budget, the same to the clock).
"""

from __future__ import annotations

import math

import torch

from vpo_kit.config import Optimiser

FULL = "full_lr"
"""The key of a parameter group under which its highest rate is kept."""


def factor(settings: Optimiser, step: int, progress: float) -> float:
    """The share of the full rate at `step`, counted from 0, when `progress` in [0, 1) of the budget is spent."""
    warm = min(1.0, (step + 1) / (settings.warmup_steps + 1))
    if settings.schedule == "constant":
        return warm
    left = min(1.0, max(0.0, (1 - progress) / settings.decay_share))
    fall = left if settings.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))
    return min(warm, fall)


def set_rates(optimiser: torch.optim.Optimizer, share: float) -> None:
    """Give each group `share` of its full rate."""
    for group in optimiser.param_groups:
        group["lr"] = group[FULL] * share
