"""The sampler against closed forms, plain autograd, and the diffusers pipeline itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, WanPipeline
from torch import Tensor, nn

from vpo_kit import models
from vpo_kit.models.conditions import Conditions
from vpo_kit.sampler import Guidance, PartialStart, chain_levels, derive_seed, draw_noise, sample, step_generators
from vpo_kit.schedule import DDPMSchedule, FlowSchedule
from vpo_kit.sprites import world

SHAPE = (2, 3, 4, 4)


class Gaussian:
    """The exact velocity for data ``N(mean, 0)``: every path is a straight line to `mean`."""

    schedule = FlowSchedule()

    def __init__(self, mean: float, scale: float = 1.0) -> None:
        self.mean = nn.Parameter(torch.tensor(mean))
        self.scale = scale
        self.calls: list[bool] = []

    def predict(self, latents: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        self.calls.append(torch.is_grad_enabled())
        sigma = (t / 1000).view(-1, 1, 1, 1, 1)
        shift = conditions.tensors["shift"].view(-1, 1, 1, 1, 1)
        return (latents - (self.mean + shift) * self.scale) / sigma

    def new_scheduler(self, steps: int, shape: Sequence[int]) -> FlowMatchEulerDiscreteScheduler:
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        scheduler.set_timesteps(steps)
        return scheduler


def conditions(*shifts: float) -> Conditions:
    return Conditions({"shift": torch.tensor(shifts)})


def test_a_point_is_reached_exactly() -> None:
    noise = draw_noise(SHAPE, [1, 2])
    for steps in (1, 4, 30):
        found = sample(Gaussian(0.7), conditions(0, 0), noise=noise, steps=steps)
        torch.testing.assert_close(found, torch.full_like(noise, 0.7), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("settings", "slope"), [({}, 1.0), ({"detached": True}, 3.0)])
def test_the_gradient_goes_through_both_branches_unless_one_is_detached(
    settings: dict[str, bool], slope: float
) -> None:
    model, guidance = Gaussian(0.7), Guidance(3.0, conditions(0.5), **settings)
    found = guidance.predict(model.predict, torch.zeros(1, *SHAPE), torch.tensor(500.0), conditions(1.0))
    (grad,) = torch.autograd.grad(found.mean(), model.mean)
    assert float(grad) == pytest.approx(-slope / 0.5)


def test_guidance_moves_along_the_difference() -> None:
    # both branches are points, so the guided path ends at negative + scale * (positive - negative)
    noise = draw_noise(SHAPE, [1, 2])
    guided = sample(Gaussian(0.0), conditions(1.0, 2.0), noise=noise, steps=5, guidance=Guidance(3.0, conditions(0.5)))
    expected = torch.tensor([2.0, 5.0]).view(2, 1, 1, 1, 1).expand_as(noise)
    torch.testing.assert_close(guided, expected, atol=1e-5, rtol=0)


def test_gradient_is_that_of_the_plain_last_steps() -> None:
    noise = draw_noise(SHAPE, [3])
    model = Gaussian(0.4)
    sample(model, conditions(0), noise=noise, steps=6, grad_steps=2).sum().backward()
    assert model.mean.grad is not None
    found, model.mean.grad = model.mean.grad.clone(), None
    # plainly: four steps without graph, then two with
    scheduler = model.new_scheduler(6, SHAPE)
    x_t = noise
    for i, t in enumerate(scheduler.timesteps):
        with torch.set_grad_enabled(i >= 4):
            x_t = scheduler.step(model.predict(x_t, t.expand(1), conditions(0)), t, x_t, return_dict=False)[0]
    x_t.sum().backward()
    torch.testing.assert_close(found, model.mean.grad)


def test_without_grad_steps_there_is_no_graph() -> None:
    model = Gaussian(0.4)
    found = sample(model, conditions(0), noise=draw_noise(SHAPE, [3]), steps=4)
    assert not found.requires_grad
    assert not any(model.calls)


def test_partial_start() -> None:
    noise, x = draw_noise(SHAPE, [5]), torch.full((1, *SHAPE), 0.3)
    seen: list[int] = []
    model = Gaussian(0.3)
    found = sample(
        model, conditions(0), noise=noise, steps=20, start=PartialStart(x, 14), callback=lambda i, _: seen.append(i)
    )
    torch.testing.assert_close(found, x, atol=1e-5, rtol=0)
    assert seen == list(range(6))
    # from the lowest level nearly nothing is changed, whatever the network says
    nearly = sample(Gaussian(0.3), conditions(0), noise=noise, steps=1000, start=PartialStart(x, 999))
    torch.testing.assert_close(nearly, x, atol=2e-2, rtol=0)


def test_levels_are_the_schedulers_own() -> None:
    levels = chain_levels(Gaussian(0.0), 10, SHAPE)
    assert levels[0] == 1
    assert (levels.diff() < 0).all()
    assert levels[5] > 0.7  # half of a chain that is shifted by 3 lies above this
    ddim = DDIMScheduler()
    ddim.set_timesteps(20)
    schedule = DDPMSchedule(ddim.alphas_cumprod)
    t = schedule.chain_times(ddim)
    abar = ddim.alphas_cumprod[t]
    level = schedule.noise_level(t)
    torch.testing.assert_close(
        level / (1 - level), ((1 - abar) / abar).sqrt(), rtol=1e-3, atol=0
    )  # the same signal-to-noise ratio


def test_noise_depends_on_the_seed_alone() -> None:
    assert torch.equal(draw_noise(SHAPE, [7, 8])[1], draw_noise(SHAPE, [8])[0])
    assert derive_seed(0, "a", 1) != derive_seed(0, "a", 2)
    assert derive_seed(0, "a", 1) == derive_seed(0, "a", 1) < 2**63


def test_noise_is_standard_normal_and_no_two_videos_share_any() -> None:
    """By Kolmogorov and Smirnov's test at 1%; rows of different seeds have nothing in common, and neither have what
    their steps draw, which are those of the video alone.
    """
    noise = draw_noise((8, 2, 8, 8), range(20))
    found = noise.flatten().double().sort().values
    cdf = 0.5 * (1 + torch.erf(found / math.sqrt(2)))
    steps = torch.arange(1, len(found) + 1) / len(found)
    assert float((cdf - steps).abs().max()) < 1.63 / math.sqrt(len(found))
    drawn = torch.stack([torch.randn(1024, generator=generator) for generator in step_generators(noise)])
    every = torch.cat([noise.flatten(1), drawn])
    together = torch.corrcoef(every) - torch.eye(40)
    assert float(together.abs().max()) < 5 / math.sqrt(1024)
    (alone,) = step_generators(noise[7:8])
    assert torch.equal(torch.randn(1024, generator=alone), drawn[7])


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_same_video_as_the_pipeline(tiny_wan: Path, guidance: float) -> None:
    model = models.load(str(tiny_wan))
    prompts = ["a red circle moving right slowly on a navy background", "a blue square circling quickly"]
    noise = draw_noise(model.latent_shape(9, 32, 32), [11, 12])
    ours = model.decode(
        sample(
            model,
            model.encode_prompts(prompts),
            noise=noise,
            steps=5,
            guidance=Guidance(guidance, model.encode_prompts(["blurry"])),
        )
    )
    theirs = WanPipeline.from_pretrained(tiny_wan)
    theirs.set_progress_bar_config(disable=True)
    video = theirs(
        prompt=prompts,
        negative_prompt="blurry",
        latents=copy.deepcopy(noise),
        num_inference_steps=5,
        guidance_scale=guidance,
        height=32,
        width=32,
        num_frames=9,
        max_sequence_length=16,
        output_type="pt",
    ).frames
    assert float((ours - video).abs().max()) < 1e-4
    assert float(ours.std()) > 0.01


def test_attention_backend_changes_nothing(tiny_wan: Path) -> None:
    x, t = torch.randn(1, 8, 3, 4, 4), torch.tensor([400.0])
    found = []
    for attention in ("auto", "sdpa"):
        model = models.load(str(tiny_wan), attention=attention)
        found.append(model.predict(x, t, model.encode_prompts(["a red circle"])))
    torch.testing.assert_close(*found)


def test_frames_of_a_causal_clip(tiny_wan: Path) -> None:
    model = models.load(str(tiny_wan))
    assert model.frame_map(9) == [(0, 1), (1, 5), (5, 9)]
    latents = draw_noise(model.latent_shape(17, 32, 32), [1, 2])
    whole = model.decode(latents)
    torch.testing.assert_close(
        model.decode(latents, frames=[0, 3, 4]), whole[:, [0, 3, 4]]
    )  # nothing to the left is cut
    model.decode_context = 4  # type: ignore[misc]
    torch.testing.assert_close(model.decode(latents, frames=[2, 7, 16]), whole[:, [2, 7, 16]])
    assert model.decode(latents, frames=[16]).shape == (2, 1, 3, 32, 32)


def test_decoding_frames_follows_the_whole_clip_closely() -> None:
    model = models.load("sprites")
    clips = [torch.from_numpy(clip.video) for clip in world.training_clips(4, seed=5)]
    latents = model.encode(torch.stack(clips))
    whole, errors = model.decode(latents), []
    for context in (1, 2, 3, 4):
        model.decode_context = context  # type: ignore[misc]
        errors.append(float((model.decode(latents, frames=[16]) - whole[:, [16]]).abs().mean()))
    assert errors[0] > errors[1] > errors[2] > errors[3] == 0
    assert errors[1] < 0.1 * float(whole.std())
