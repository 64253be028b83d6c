"""Frozen linear layers whose weights take a byte or half of one, and which a gradient goes through.

Legend: ``W`` is ``[out, in]``, ``x`` ``[..., in]``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vpo_kit.errors import ConfigError
from vpo_kit.models.base import VideoModel, stacks

FP8 = torch.float8_e4m3fn


class Fp8Linear(nn.Linear):
    """A frozen linear layer whose weight is kept in eight bits (e4m3) with a scale for each output.

    Nothing is multiplied in eight bits: each pass turns the weight back, and so does the backward pass, so that the
    graph keeps the small one. The bits lie in bytes, as whatever looks at a weight's dtype takes it for that of
    the calculation: PEFT would round a new LoRA to it.
    """

    scale: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach().float()
        largest = weight.abs().amax(1, keepdim=True)
        scale = torch.where(largest > 0, largest / torch.finfo(FP8).max, 1.0)
        self.weight = nn.Parameter((weight / scale).to(FP8).view(torch.uint8), requires_grad=False)
        self.bias = layer.bias
        self.register_buffer("scale", scale)

    def forward(self, input: Tensor) -> Tensor:
        """``x W^T + b`` in the dtype of `input`, ``x``."""
        found: Tensor = _Product.apply(input, self.weight, self.scale)
        return found if self.bias is None else found + self.bias


class _Product(torch.autograd.Function):
    """``x W^T`` of a weight in eight bits, which gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(bits, scale)
        return x @ _whole(bits, scale, x.dtype).T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        bits, scale = ctx.saved_tensors
        return grad @ _whole(bits, scale, grad.dtype), None, None


def _whole(bits: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return bits.view(FP8).to(dtype) * scale.to(dtype)


def _nf4(layer: nn.Linear) -> nn.Linear:
    """In bitsandbytes' four bits, a scale for each 64 numbers; it becomes so when it is moved to its device."""
    bnb = importlib.import_module("bitsandbytes.nn")
    made: nn.Linear = bnb.Linear4bit(
        layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=layer.weight.dtype,
        compress_statistics=False, quant_type="nf4", device="meta",
    )  # fmt: skip
    weight = layer.weight.detach()
    made.weight = bnb.Params4bit(weight, requires_grad=False, compress_statistics=False, quant_type="nf4")
    made.bias = layer.bias
    return made


KINDS: dict[str, Callable[[nn.Linear], nn.Linear]] = {"fp8": Fp8Linear, "nf4": _nf4}
BYTES = {"int8": 1.0, "fp8": 1.0, "nf4": 0.5 + 4 / 64}
"""What a number of a quantised weight takes, but for scales of whole rows."""


def check_shrinks(model: VideoModel, kind: str) -> None:
    """Raises `ConfigError` for nf4 in a UNet, which calls layers in a way that bitsandbytes' do not know."""
    if kind == "nf4" and model.network_name != "transformer":
        raise ConfigError(f"quantise: nf4 is not for {type(model.network).__name__}: use int8 or fp8")


def shrink(model: VideoModel, kind: str) -> None:
    """Keep the linear layers in the stacks of the model's networks as `kind` says: fp8 or nf4. Raises as
    `check_shrinks`.
    """
    check_shrinks(model, kind)
    for network in model.networks.values():
        for stack in stacks(network).values():
            for module in list(stack.modules()):
                for name, layer in list(module.named_children()):
                    if type(layer) is nn.Linear:
                        setattr(module, name, KINDS[kind](layer))
