"""What the methods that learn from fresh videos share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.support.brief_runs import PROMPTS, run_once
from tests.support.rollout_member import member
from vpo_kit import models
from vpo_kit.config import Lora, Sampling
from vpo_kit.methods.base import Batch
from vpo_kit.methods.online import Online, OnlineConfig
from vpo_kit.models.base import VideoModel
from vpo_kit.rewards.base import Mixture
from vpo_kit.testing.rewards import Brightness, stub
from vpo_kit.testing.steps import context_of
from vpo_kit.training.lora import LoraPolicy


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


def spread(model: VideoModel, rollout_guidance: float = 1.0, **settings: object) -> tuple[Tensor, int]:
    """How far apart the candidates of each of two prompts are, and the passes of the rollout."""
    policy, passes = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0), 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    hook = model.network.register_forward_hook(count)
    try:
        chosen = OnlineConfig(num_candidates=4, rollout_guidance=rollout_guidance, **settings)  # type: ignore[arg-type]
        method = Online(chosen, context_of(policy, Brightness(), batch_size=2))
        batch = Batch(
            step=0,
            prompts=PROMPTS,
            conditions=model.encode_prompts(PROMPTS),
            positions=[0, 1],
            indices=[0, 1],
            visits=[0, 0],
        )
        with torch.no_grad():
            latents = method._sample(batch)[0].view(2, 4, -1)
        return (latents - latents.mean(1, keepdim=True)).pow(2).mean((1, 2)), passes
    finally:
        hook.remove()
        model.network.delete_adapters(["default"])


def test_candidates_of_a_branch_are_alike_and_cheaper(model: VideoModel) -> None:
    apart, all_steps = spread(model)
    near, shared = spread(model, branch=0.3)
    assert all_steps == 3
    assert shared == 3 + 1  # the samples that the candidates branch off, and a third of the chain
    assert spread(model, rollout_guidance=3.0, branch=0.3)[1] == 2 * shared
    assert (near > 0).all()
    assert (near < 0.5 * apart).all()


def test_a_rollout_may_take_other_steps_than_sampling(model: VideoModel) -> None:
    assert spread(model, rollout_steps=2)[1] == 2


def test_guidance_costs_what_its_interval_holds(model: VideoModel) -> None:
    """Of three steps at levels 1, .8 and .5."""
    for interval, passes in (((0, 1), 6), ((0, 0.9), 5), ((0.7, 0.9), 4), ((0.1, 0.2), 3)):
        found, counted = spread(model, rollout_guidance=3.0, rollout_guidance_interval=interval)
        assert counted == passes
        assert torch.equal(found, spread(model, rollout_guidance=3.0)[0]) == (passes == 6)
    assert torch.equal(found, spread(model)[0])


@pytest.mark.parametrize("levels", [(0.9, 0.1), (0.5, 0.5), (-0.1, 0.5), (0.5, 1.5)])
def test_an_interval_that_holds_no_level_is_refused(levels: tuple[float, float]) -> None:
    for kind, name in ((OnlineConfig, "rollout_guidance_interval"), (Sampling, "guidance_interval")):
        with pytest.raises(ValidationError, match="a lower and a higher noise level"):
            kind.model_validate({name: levels})


def test_a_branched_run_resumes_exactly(model: VideoModel, tmp_path: Path) -> None:
    settings = {"branch": 0.6, "num_candidates": 4, "pairs": "crossed", "num_pairs": 2}
    whole = run_once(model, tmp_path / "whole", 5, settings)
    run_once(model, tmp_path / "parts", 3, settings)
    assert run_once(model, tmp_path / "parts", 5, settings) == whole


def test_several_rewards_are_normalised_and_added_or_added_and_normalised(model: VideoModel) -> None:
    """A reward whose candidates hardly differ counts as much as the other one only where each is normalised."""
    still = stub("still", lambda video, _: -1e-3 * video.flatten(1).mean(1), mean=0.0, std=1.0)()
    mixture, found = Mixture([(Brightness(), 1.0), (still, 1.0)]), {}
    for rewards in ("decoupled", "summed"):
        with member(model, "nft", reward=mixture, rewards=rewards) as one:
            found[rewards] = one.method._roll_out(one.batch).tensors["good"]
    with member(model, "nft") as one:
        alone = one.method._roll_out(one.batch).tensors["good"]
    torch.testing.assert_close(found["summed"], alone, atol=1e-4, rtol=0)
    # both orders are the reverse of each other, so that their sum is even
    assert float((found["decoupled"] - 0.5).abs().max()) < 0.05 < float((alone - 0.5).abs().max())
