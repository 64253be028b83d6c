"""Losses of latents, part by part: what is behind the latents is gone through, backwards too, one part at a time.

A decoder's graph is many times larger than that of the sampler's last step. The parts' gradients are added up in the
latents, and one backward pass takes their sum on into the network: the chain rule, in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def in_parts(latents: Tensor, losses: Iterable[Callable[[Tensor], Tensor]]) -> Tensor:
    """The sum of scalar `losses` of `latents`, whose graph holds the latents' and no loss's.

    Each loss's own graph is freed before the next is built. Weights behind the losses get no gradient. The sum can be
    differentiated once.
    """
    cut = latents.detach().requires_grad_()
    total, gradient = torch.zeros((), device=latents.device), torch.zeros_like(latents)
    for loss in losses:
        with torch.enable_grad():
            value = loss(cut)
            gradient += torch.autograd.grad(value, cut)[0]
        total = total + value.detach()
        del value  # with its graph, before the next is built
    found: Tensor = _Known.apply(latents, total, gradient)
    return found


class _Known(torch.autograd.Function):
    """A value whose gradient in the latents is known."""

    @staticmethod
    def forward(ctx: Any, latents: Tensor, total: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return total.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient, None, None
