"""Blocks that are on the device only while they run: the same gradient, at most two blocks there, the LoRA untouched.

There is one device here, so the weights that wait hold NaN, and the copies that are made for a call hold the numbers.
"""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.support.commands import main_ok
from tests.support.moved import moved
from vpo_kit import models
from vpo_kit.config import Lora, build
from vpo_kit.errors import ConfigError
from vpo_kit.models import group_offload, memory
from vpo_kit.models.base import VideoModel, stacks
from vpo_kit.models.group_offload import Swap, _following
from vpo_kit.sampler import draw_noise, sample
from vpo_kit.testing.families import FAMILIES
from vpo_kit.training import recipe
from vpo_kit.training.lora import LoraPolicy

PROMPTS = ["a red circle moving right slowly", "a blue square circling quickly"]


class Away:
    """The numbers of weights that wait, and the copies of them that are held."""

    def __init__(self) -> None:
        self._numbers: dict[int, Tensor] = {}
        self._blocks: dict[int, int] = {}
        self._held: dict[int, list[weakref.ref[Tensor]]] = {}
        self.most = 0

    def send(self, block: nn.Module) -> None:
        """Leave NaN in the places of a block's weights."""
        number = len(self._held)
        self._held[number] = []
        for tensor in (*block.parameters(), *block.buffers()):
            if tensor.is_floating_point():
                self._numbers[id(tensor)], self._blocks[id(tensor)] = tensor.data.clone(), number
                tensor.data.fill_(torch.nan)

    def waits(self, tensor: Tensor, device: object = None) -> bool:
        return id(tensor) in self._numbers

    def copy(self, tensor: Tensor, device: torch.device) -> Tensor:
        made = nn.Parameter(self._numbers[id(tensor)].clone(), requires_grad=False)
        self._held[self._blocks[id(tensor)]].append(weakref.ref(made))
        self.most = max(self.most, self.there)
        return made

    @property
    def there(self) -> int:
        """Blocks of which something is on the device."""
        return sum(any(seen() is not None for seen in seens) for seens in self._held.values())


def load(name: str, folder: Path) -> VideoModel:
    torch.manual_seed(0)
    FAMILIES[name].build().save_pretrained(folder, safe_serialization=True)
    return models.load(str(folder))


def away(model: VideoModel, *, ahead: bool = True) -> Away:
    found = Away()
    for network in model.networks.values():
        blocks = [block for stack in stacks(network).values() for block in stack]
        for block in blocks:
            found.send(block)
        Swap(blocks, lambda: model.device, ahead=ahead, copy=found.copy, waits=found.waits)
    return found


def gradient(policy: LoraPolicy, name: str) -> list[Tensor]:
    """Of a loss with a policy pass and a reference pass, as in DPO."""
    model, family = policy.model, FAMILIES[name]
    items = [model.example(prompt) for prompt in PROMPTS]
    shape = model.latent_shape(family.frames, family.size, family.size)
    conditions = model.conditions_at(items, frames=family.frames, height=family.size, width=family.size)
    t = model.schedule.network_time(model.time_sampler(None, model.settings, model.networks).draw([1, 2]))
    x = draw_noise(shape, [1, 2])
    own = model.predict(x, t, conditions)
    with torch.no_grad(), policy.reference():
        reference = model.predict(x, t, conditions)
    return list(
        torch.autograd.grad((own - reference).square().mean() + own.mean(), policy.parameters, allow_unused=True)
    )


@pytest.mark.parametrize("name", ["wan2.1", "wan2.2-a14b", "skyreels2", "ltx", "cogvideox-2b", "hunyuan"])
def test_the_gradient_is_the_same(name: str, tmp_path: Path) -> None:
    """A block that ran, forward or again for the backward pass, without its weights would give NaN."""
    model = load(name, tmp_path)
    memory.tune(model, gradient_checkpointing=True)
    policy = moved(LoraPolicy(model, Lora(rank=2, alpha=4), seed=0))
    plain = gradient(policy, name)

    other = models.load(str(tmp_path))
    memory.tune(other, gradient_checkpointing=True)
    seen = away(other)
    swapped = moved(LoraPolicy(other, Lora(rank=2, alpha=4), seed=0))
    found = gradient(swapped, name)
    assert all(
        (one is None) == (two is None) and (one is None or torch.equal(one, two))
        for one, two in zip(found, plain, strict=True)
    )
    assert any(one is not None and one.any() for one in found)
    assert seen.most <= 2 * len(other.networks)
    assert seen.there <= len(other.networks), "what was sent for last, and nothing of the graph"


def test_at_most_two_blocks_are_there(tiny_wan: Path) -> None:
    """Of eight, in a chain without a graph, and forward and backward with one; without checkpointing all stay."""
    for checkpointing, most in ((True, 2), (False, 8)):
        model = models.load(str(tiny_wan))
        blocks = model.network.blocks
        blocks.extend(type(blocks[0])(24, 48, 2, cross_attn_norm=True) for _ in range(6))
        model.network.requires_grad_(False)
        memory.tune(model, gradient_checkpointing=checkpointing)
        seen = away(model)
        policy = moved(LoraPolicy(model, Lora(rank=2, alpha=4), seed=0))
        noise, conditions = draw_noise((8, 3, 4, 4), [1]), model.encode_prompts(PROMPTS[:1])
        sample(model, conditions, noise=noise, steps=2)
        assert seen.most == 2
        model.predict(noise, torch.tensor([500.0]), conditions).mean().backward()  # type: ignore[no-untyped-call]
        assert seen.most >= most if most == 8 else seen.most == 2
        assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.parameters)


def test_blocks_come_in_order_and_back() -> None:
    order = [0, 1, 2, 3, 3, 2, 1, 0, 0, 1]
    guesses = [_following(i, last, 4) for last, i in zip([-1, *order], order, strict=False)]
    assert guesses == [1, 2, 3, None, 2, 1, 0, None, 1, 2]


def test_an_error_inside_leaves_the_weights_in_their_places(tiny_wan: Path) -> None:
    model = models.load(str(tiny_wan))
    seen = away(model)
    before = [id(tensor) for tensor in model.network.parameters()]
    with pytest.raises(AttributeError):
        model.network.blocks[0](torch.zeros(1, 1, 3), None, None, None)
    assert [id(tensor) for tensor in model.network.parameters()] == before
    assert seen.most


def test_a_run_is_the_same(tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the byte, with the weights at home out of reach."""
    sets = ["batch_size=1", "evaluation.num_prompts=1", "method.num_candidates=2", "gradient_checkpointing=true"]
    flags = [part for text in sets for part in ("--set", text)]
    seen = Away()

    class Sent(Swap):
        def __init__(self, blocks, device, **more):  # type: ignore[no-untyped-def]
            for block in blocks:
                seen.send(block)
            super().__init__(blocks, device, **{**more, "ahead": True})

    monkeypatch.setattr(group_offload, "_elsewhere", seen.waits)
    monkeypatch.setattr(group_offload, "_sent", seen.copy)
    for name, more in (("plain", []), ("swapped", ["--set", "group_offload=true"])):
        if more:
            monkeypatch.setattr(group_offload, "Swap", Sent)
        main_ok(["train", "--model", tiny_wan, "--output", tmp_path / name, "--steps", 1, *flags, *more])
    assert seen.most == 2
    one, two = (tmp_path / name for name in ("plain", "swapped"))
    assert (one / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()
    tables = [json.loads((path / "summary.json").read_text())["after"] for path in (one, two)]
    assert tables[0] == tables[1]


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    for values, start in (
        ({}, "group_offload: without gradient_checkpointing=true "),
        ({"gradient_checkpointing": True, "compile": True}, "compile: blocks that come and go "),
        ({"gradient_checkpointing": True, "quantise": "int8"}, "group_offload: weights in int8 "),
    ):
        with pytest.raises(ConfigError, match=f"^{start}") as caught:
            recipe.check(build({"group_offload": True, **values}))
        assert "\n" not in str(caught.value)
    for alone in ({"group_offload": True, "gradient_checkpointing": True}, {"compile": True}):
        recipe.check(build(alone))
    load("modelscope", tmp_path)
    with pytest.raises(ConfigError, match=r"^group_offload: UNet3DConditionModel is no stack of blocks"):
        models.load(str(tmp_path), group_offload=True)


@pytest.mark.gpu
def test_on_a_gpu_the_blocks_wait_outside(tiny_wan: Path) -> None:
    """The same gradient, and the blocks' weights in pinned memory before and after."""
    found = []
    for on in (False, True):
        model = models.load(str(tiny_wan), group_offload=on)
        memory.tune(model, gradient_checkpointing=True)
        policy = moved(LoraPolicy(model, Lora(rank=2, alpha=4), seed=0))
        assert {p.device.type for p in policy.parameters} == {"cuda"}
        found.append(gradient(policy, "wan2.1"))
        home = [block.attn1.to_q.base_layer.weight for block in model.network.blocks]
        assert [w.is_pinned() for w in home] == [on] * len(home)
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)
