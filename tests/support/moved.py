"""A policy that is no longer its reference."""

from __future__ import annotations

import torch

from vpo_kit.training.lora import LoraPolicy


def moved(policy: LoraPolicy) -> LoraPolicy:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy
