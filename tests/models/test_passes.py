"""Passes in another precision: the network's products alone, in rollouts alone, and nothing is left over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.rollout_member import member
from vpo_kit import models
from vpo_kit.methods.grpo import GRPOConfig
from vpo_kit.models.base import VideoModel
from vpo_kit.models.passes import around, lower_dtype, lowered
from vpo_kit.models.step_cache import step_cache
from vpo_kit.sampler import draw_noise, sample

TEXTS = ["a red circle moving right slowly", "a blue square circling quickly"]


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


def sampled(model: VideoModel, dtype: torch.dtype | None) -> tuple[Tensor, set[tuple[torch.dtype, bool]]]:
    """Latents of two prompts; the dtypes of a layer's products, and whether the latents of each step were float32."""
    found: set[tuple[torch.dtype, bool]] = set()
    whole = True

    def see(module: object, given: object, output: Tensor) -> None:
        found.add((output.dtype, whole))

    def watch(step: int, latents: Tensor) -> None:
        nonlocal whole
        # numbers that bfloat16 has are not what a solver of several steps comes to in float32
        whole = latents.dtype == torch.float32 and not torch.equal(latents, latents.bfloat16().float())

    hook = model.network.blocks[-1].attn1.to_q.register_forward_hook(see)
    noise = draw_noise(model.latent_shape(*model.settings.size), [1, 2])
    try:
        with torch.no_grad(), lowered(model, dtype):
            conditions = model.encode_prompts(TEXTS)
            latents = sample(model, conditions, noise=noise, steps=4, callback=watch)
    finally:
        hook.remove()
    return latents, found


def test_the_networks_products_alone_are_lowered(model: VideoModel) -> None:
    plain, products = sampled(model, None)
    assert products == {(torch.float32, True)}
    other, products = sampled(model, torch.bfloat16)
    assert products == {(torch.bfloat16, True)}
    error = float((other - plain).norm() / plain.norm())
    assert 0 < error < 0.05
    assert torch.equal(sampled(model, None)[0], plain)  # nothing is left over
    noise = draw_noise(model.latent_shape(*model.settings.size), [1, 2])
    with torch.no_grad(), lowered(model, torch.bfloat16):
        assert model.predict(noise, torch.full((2,), 500.0), model.encode_prompts(TEXTS)).dtype == torch.float32


def test_what_stands_around_a_pass_is_taken_off_again(model: VideoModel) -> None:
    with step_cache(model, 0.5), lowered(model, torch.bfloat16):
        assert "predict" in vars(model)
    assert "predict" not in vars(model)
    with pytest.raises(RuntimeError, match="inside"), around(model, lambda predict: predict):
        raise RuntimeError("inside")
    assert "predict" not in vars(model)


@pytest.mark.parametrize(
    "setting", [{"rollout_cache": 1e9}, {"rollout_dtype": "bfloat16"}], ids=lambda one: next(iter(one))
)
def test_only_rollouts_cost_less(model: VideoModel, setting: dict[str, Any]) -> None:
    """Candidates are other ones than without; the step's own passes are whole, with the graph of all blocks, and in
    the model's precision: of the same pairs they have the same gradient.
    """
    rollouts, grads = [], []
    for settings in ({}, setting):
        with member(model, "online", moved=0.02, rollout_steps=4, **settings) as one:
            fresh = one.method._roll_out(one.batch)
            rollouts.append(fresh)
            assert not model.network.is_cache_enabled
            grads.append(one.gradient())
            if len(rollouts) == 2:
                one.method._fresh = rollouts[0]
                one.method._roll_out = lambda batch: rollouts[0]
                grads.append(one.gradient())
    assert not torch.equal(*(fresh.tensors["winners"] for fresh in rollouts))
    assert all((grad != 0).float().mean() > 0.5 for grad in grads)
    assert torch.equal(grads[0], grads[2])


def test_a_likelihood_is_of_the_pass_that_is_trained() -> None:
    with pytest.raises(ValueError, match="leave rollout_dtype out"):
        GRPOConfig(rollout_dtype="bfloat16")


@pytest.mark.parametrize(
    ("able", "wanted"), [({}, None), ({"avx512_f": True}, None), ({"amx_bf16": True}, torch.bfloat16)]
)
def test_auto_is_bfloat16_where_the_processor_has_it(
    able: dict[str, bool], wanted: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert lower_dtype(torch.device("cpu")) == wanted
    assert lower_dtype(torch.device("meta")) is None
