"""What a graph keeps in the machine's memory: bit-equal gradients, and nothing but weights left where it was made.

There is one device here: a copy in other memory stands for the move.
"""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.support.commands import main_ok
from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.models import memory
from vpo_kit.models.activations import is_weight, kept_away
from vpo_kit.models.base import VideoModel
from vpo_kit.sampler import draw_noise, sample
from vpo_kit.training import loop
from vpo_kit.training.lora import LoraPolicy


class Gone:
    """How much went away."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, tensor: Tensor) -> bool:
        assert not is_weight(tensor)
        self.bytes += tensor.nbytes
        return True


def policy_of(folder: Path, *, checkpointing: bool) -> LoraPolicy:
    model = models.load(str(folder))
    memory.tune(model, gradient_checkpointing=checkpointing)
    policy = LoraPolicy(model, Lora(rank=2, alpha=4), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy


def loss(model: VideoModel, *, chain: bool) -> Tensor:
    """Of one pass, or of the last two steps of a chain and the decoder."""
    noise, conditions = draw_noise((8, 3, 4, 4), [1]), model.encode_prompts(["a red circle moving right slowly"])
    if not chain:
        return model.predict(noise, torch.tensor([500.0]), conditions).square().mean()
    return model.decode(sample(model, conditions, noise=noise, steps=3, grad_steps=2)).square().mean()


@pytest.mark.parametrize("chain", [False, True], ids=["pass", "chain"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_the_gradient_is_the_same_to_the_bit(checkpointing: bool, chain: bool, tiny_wan: Path) -> None:
    policy = policy_of(tiny_wan, checkpointing=checkpointing)
    plain = torch.autograd.grad(loss(policy.model, chain=chain), policy.parameters)
    gone = Gone()
    with kept_away(gone):
        found = torch.autograd.grad(loss(policy.model, chain=chain), policy.parameters)
    assert gone.bytes
    assert all(torch.equal(one, two) for one, two in zip(found, plain, strict=True))


def test_with_checkpointing_the_inputs_of_blocks_go(tiny_wan: Path) -> None:
    """Far less than without, and among it the hidden states before each block, which are then freed."""
    bytes_, seen = dict[bool, int](), list[weakref.ref[Tensor]]()

    def see(block: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(weakref.ref(args[0]))

    for checkpointing in (False, True):
        policy, gone = policy_of(tiny_wan, checkpointing=checkpointing), Gone()
        seen.clear()
        hook = policy.model.network.blocks[1].register_forward_pre_hook(see)
        with kept_away(gone):
            value = loss(policy.model, chain=False)
            assert checkpointing <= (seen[0]() is None)
            value.backward()  # type: ignore[no-untyped-call]
        hook.remove()
        bytes_[checkpointing] = gone.bytes
    assert 0 < bytes_[True] < 0.5 * bytes_[False]


def test_weights_stay() -> None:
    layer = nn.Linear(8, 8)
    gone = Gone()
    x = torch.randn(4, 8, requires_grad=True)
    with kept_away(gone):
        layer(x).sum().backward()
    assert gone.bytes == x.nbytes


@pytest.mark.parametrize("method", ["online", "draft"])
def test_a_run_is_the_same(method: str, tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Gone()
    monkeypatch.setattr(loop, "kept_away", lambda: kept_away(gone))
    sets = ["batch_size=1", "evaluation.num_prompts=0", "sampling.steps=2", "checkpoints.every=5"]
    sets += ["method.num_candidates=2", "micro_batch_size=1"] if method == "online" else []
    flags = [part for text in sets for part in ("--set", text)]
    for name, on in (("without", "false"), ("with", "true")):
        where = ["--model", tiny_wan, "--output", tmp_path / name, "--set", f"activation_offload={on}"]
        main_ok(["train", "--method", method, "--steps", 2, *where, *flags])
    one, two = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("without", "with"))
    assert one == two
    assert gone.bytes


@pytest.mark.gpu
def test_on_a_gpu_what_is_kept_is_elsewhere(tiny_wan: Path) -> None:
    found, held = [], []
    for on in (False, True):
        policy = policy_of(tiny_wan, checkpointing=True)
        before = torch.cuda.memory_allocated()
        with kept_away() if on else torch.enable_grad():
            value = loss(policy.model, chain=False)
            held.append(torch.cuda.memory_allocated() - before)
            found.append(torch.autograd.grad(value, policy.parameters))
    assert held[1] < held[0]
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
