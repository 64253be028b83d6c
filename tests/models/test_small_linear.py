"""Linear layers in eight bits: what they calculate, what their gradient is, and what they keep."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from vpo_kit.models.small_linear import FP8, Fp8Linear


def layer(rows: int = 24, columns: int = 40, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(columns, rows, bias=bias).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_layer_with_its_own_rounded_weight(bias: bool) -> None:
    """Output and gradient; each number of the weight is off by at most half a step of e4m3, a sixteenth of itself."""
    exact = layer(bias=bias)
    small = Fp8Linear(exact)
    rounded = layer(bias=bias)
    rounded.weight.data = small.weight.view(FP8).float() * small.scale
    below = small.scale * 2.0**-9  # a step of the numbers that are too small for e4m3's exponents
    assert ((rounded.weight - exact.weight).abs() <= exact.weight.abs() / 16 + below / 2).all()
    x = torch.randn(3, 5, 40, requires_grad=True)
    out, expected = small(x), rounded(x)
    torch.testing.assert_close(out, expected)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (out, expected)]
    torch.testing.assert_close(*grads)


def test_the_scale_is_that_of_each_row() -> None:
    """Rows a thousand times as large, and one of zeros: each has the relative error of any."""
    exact = layer()
    plain = Fp8Linear(exact)(torch.eye(40)).T
    factors = torch.tensor([1.0, 1024.0, 2.0**-20, 0.0]).repeat(6)[:, None]
    exact.weight.data *= factors
    exact.bias.data *= 0
    small = Fp8Linear(exact)
    plain = plain - layer().bias[:, None]
    torch.testing.assert_close(small(torch.eye(40)).T, plain * factors)


def test_the_graph_keeps_the_small_weight() -> None:
    small, kept = Fp8Linear(layer(256, 256)), 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    x = torch.randn(1, 256, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        small(x)
    assert kept <= 256 * 256 + 4 * 256


def test_a_new_lora_is_not_rounded_to_eight_bits() -> None:
    first = []
    for kind in (nn.Linear, Fp8Linear):
        base = layer() if kind is nn.Linear else Fp8Linear(layer())
        torch.manual_seed(1)
        made = inject_adapter_in_model(LoraConfig(r=4, target_modules=["0"]), nn.Sequential(base))
        first.append(made[0].lora_A["default"].weight)  # type: ignore[index,union-attr]
    assert torch.equal(*first)
