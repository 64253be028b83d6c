"""What the methods that learn from fresh videos share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.support.brief_runs import PROMPTS, run_once
from tests.support.rollout_member import member
from vpo_kit import models
from vpo_kit.config import Lora, Sampling
from vpo_kit.methods import online
from vpo_kit.methods.base import Batch
from vpo_kit.methods.online import Online, OnlineConfig
from vpo_kit.models.base import VideoModel
from vpo_kit.rewards.base import Mixture
from vpo_kit.sampler import Guidance, derive_seed, draw_noise, sample
from vpo_kit.testing.rewards import Brightness, stub
from vpo_kit.testing.steps import context_of
from vpo_kit.times import Strata
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.video import motion


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
            settings=model.settings,
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


def by_prompt(video: Tensor, prompts: Sequence[str]) -> Tensor:
    """Brightness, which a prompt with a square wants low."""
    return video.flatten(1).mean(1) * torch.tensor([-1.0 if "square" in prompt else 1.0 for prompt in prompts])


@torch.no_grad()
def made_again(model: VideoModel, count: int, guidance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Latents ``[P * n, C, T, h, w]``, scores ``[P, n]`` and motion ``[P * n]`` of the candidates of step 0, each made
    alone: its own seed, under its own prompt.
    """
    shape, found = model.latent_shape(9, 32, 32), list[Tensor]()
    scale = Guidance(guidance, model.encode_prompts([""]))
    for i in range(len(PROMPTS) * count):
        noise, conditions = (
            draw_noise(shape, [derive_seed(0, "rollout", 0, i)]),
            model.encode_prompts([PROMPTS[i // count]]),
        )
        found.append(sample(model, conditions, noise=noise, steps=3, guidance=scale))
    latents = torch.cat(found)
    video, repeated = model.decode(latents), [prompt for prompt in PROMPTS for _ in range(count)]
    return latents, by_prompt(video, repeated).view(-1, count), motion(video)


def test_pairs_are_the_best_and_the_worst_of_each_prompts_own_candidates(model: VideoModel) -> None:
    reward = stub("by_prompt", by_prompt)()
    with member(model, "online", reward=reward, num_candidates=3, motion_weight=1.0) as one:
        latents, scores, moved = made_again(model, 3, guidance=3.0)
        fresh = one.method._roll_out(one.batch)
    rows = torch.arange(2) * 3
    winners, losers = rows + scores.argmax(1), rows + scores.argmin(1)
    for name, chosen in (("winners", winners), ("losers", losers)):
        torch.testing.assert_close(fresh.tensors[name], latents[chosen], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fresh.tensors["motion"], moved[torch.stack([winners, losers], 1)], atol=1e-4, rtol=0)
    assert fresh.numbers.tolist() == [0, 1]
    for name, value in model.encode_prompts(PROMPTS).tensors.items():
        assert torch.equal(fresh.conditions.tensors[name], value)
    assert fresh.report["reward_mean"] == pytest.approx(float(scores.mean()), abs=1e-5)
    assert fresh.report["reward_margin"] == pytest.approx(float((scores.amax(1) - scores.amin(1)).mean()), abs=1e-5)
    assert fresh.report["motion"] == pytest.approx(float(moved.mean()), abs=1e-5)


@pytest.mark.parametrize(("name", "settings"), [("nft", {"rollout_guidance": 1.5}), ("rwr", {"temperature": 0.5})])
def test_every_candidate_counts_by_its_standing_under_its_own_prompt(
    model: VideoModel, name: str, settings: dict[str, float]
) -> None:
    reward = stub("by_prompt", by_prompt)()
    with member(model, name, reward=reward, num_candidates=3, **settings) as one:
        latents, scores, _ = made_again(model, 3, settings.get("rollout_guidance", 3.0))
        fresh = one.method._roll_out(one.batch)
    torch.testing.assert_close(fresh.tensors["x"], latents, atol=1e-4, rtol=1e-4)
    standing = ((scores - scores.mean(1, keepdim=True)) / scores.std(1, correction=0, keepdim=True)).flatten()
    weight = (standing / 0.5).exp()
    expected = standing / 10 + 0.5 if name == "nft" else weight / weight.mean()
    torch.testing.assert_close(fresh.tensors["good" if name == "nft" else "weight"], expected, atol=1e-3, rtol=1e-3)
    for key, value in model.encode_prompts(PROMPTS).tensors.items():
        assert torch.equal(fresh.conditions.tensors[key], value.repeat_interleave(3, 0))


def test_each_step_of_a_stochastic_chain_has_a_noise_of_its_own(model: VideoModel) -> None:
    """What is kept of a candidate's steps: from where, to where, and that this is the mean and just that noise; and
    what the video at the chain's end is worth among those of its prompt.
    """
    shape = model.latent_shape(9, 32, 32)
    with member(model, "grpo", reward=stub("by_prompt", by_prompt)(), num_candidates=2) as one, torch.no_grad():
        fresh = one.method.step(one.batch) and one.method._fresh
        assert fresh is not None
        kept, scores = fresh.tensors, list[Tensor]()
        for i in range(4):
            seed = derive_seed(0, "rollout", 0, i)
            assert torch.equal(kept["x"][i, 0], draw_noise(shape, [seed])[0])
            conditions = model.encode_prompts([PROMPTS[i // 2]])
            for place, number in enumerate(kept["steps"][i].tolist()):
                went = one.method._go(number, kept["x"][i : i + 1, place], conditions)  # type: ignore[attr-defined]
                drawn = draw_noise(shape, [derive_seed(seed, "step", number)])
                expected = (went.mean + went.deviation * drawn)[0]
                torch.testing.assert_close(kept["next"][i, place], expected, atol=1e-4, rtol=1e-4)
                if place:
                    assert torch.equal(kept["x"][i, place], kept["next"][i, place - 1])
            end = one.method._go(2, kept["next"][i : i + 1, -1], conditions, noisy=False).mean  # type: ignore[attr-defined]
            scores.append(by_prompt(model.decode(end), [PROMPTS[i // 2]]))
    # of two candidates one is as far above the mean as the other below
    sign = (torch.cat(scores).view(2, 2).diff(dim=1) > 0) * 2.0 - 1
    torch.testing.assert_close(kept["advantage"], torch.cat([-sign, sign], 1).flatten(), atol=1e-3, rtol=0)


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


def test_right_words_are_a_mean_over_clips_that_are_counted_by_the_step(
    model: VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the six candidates of a rollout each of its two steps counts three."""
    with member(model, "online", updates_per_rollout=2) as one:
        words = torch.tensor([1.0, 0.5, 0.5, 0.0, 1.0, 0.0])
        monkeypatch.setattr(type(one.context), "text", lambda self, video, prompts: words)
        found = one.method._read(torch.zeros(6, 1, 3, 4, 4), ["a"] * 6)
    assert found == {"text_accuracy": 0.5, "text_clips": 3.0}


def test_every_draw_of_every_pair_has_a_piece_of_its_own(model: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Strata] = []
    monkeypatch.setattr(online, "Strata", lambda *args: made.append(Strata(*args)) or made[-1])
    with member(model, "online", num_draws=2, times={"name": "uniform", "stratified": True}) as one:
        one.method.step(one.batch)
    (strata,) = made
    assert (strata.total, sorted(strata.places)) == (4, [0, 1, 2, 3])  # two draws of two pairs
