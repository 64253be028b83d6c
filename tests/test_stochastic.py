"""Stochastic steps against closed forms and against diffusers' own schedulers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from vpo_kit import schedule as schedules
from vpo_kit import stochastic
from vpo_kit.errors import ModelError
from vpo_kit.models.conditions import Conditions
from vpo_kit.sampler import sample
from vpo_kit.stochastic import Chain, Step

SHAPE = (2, 3, 4, 4)
MEAN, SPREAD = 0.5, 0.4


class Gaussian:
    """A model in closed form: data is N(MEAN, SPREAD^2) in every number."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.schedule = schedules.from_scheduler(scheduler)

    def new_scheduler(self, steps: int, shape: Sequence[int]) -> Any:
        made = type(self.scheduler).from_config(self.scheduler.config)
        made.set_timesteps(steps)
        return made

    def predict(self, latents: Tensor, time: Tensor, conditions: Any) -> Tensor:
        t = (time / 1000).view(-1, *[1] * (latents.ndim - 1))
        variance = (1 - t) ** 2 * SPREAD**2 + t**2
        apart = (latents - (1 - t) * MEAN) / variance
        return t * apart - (MEAN + (1 - t) * SPREAD**2 * apart)  # E[eps - x | x_t]


NOTHING = Conditions({"nothing": torch.zeros(2, 1)})


def walk(model: Gaussian, chain: Chain, x: Tensor, *, noisy: bool, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    for number in range(len(chain)):
        prediction = model.predict(x, chain.times[number].expand(len(x)), None)
        step = chain.step(number, x, prediction, noisy=noisy)
        x = step.mean + step.deviation * torch.randn(x.shape, generator=generator) if noisy else step.mean
    return x


@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_without_noise_it_is_eulers_chain_to_the_last_bit(shift: float) -> None:
    model, noise = Gaussian(FlowMatchEulerDiscreteScheduler(shift=shift)), torch.randn(2, *SHAPE)
    euler = sample(model, NOTHING, noise=noise, steps=7)
    assert torch.equal(walk(model, Chain(model, 7, SHAPE), noise, noisy=False), euler)


def test_a_solver_of_several_steps_lends_its_levels() -> None:
    """UniPC's sigmas, and Euler's step on them; and it is said."""
    unipc = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    model, noise = Gaussian(unipc), torch.randn(1, *SHAPE)
    chain = Chain(model, 5, SHAPE)
    sigmas = model.new_scheduler(5, SHAPE).sigmas
    x = noise
    for i in range(5):
        x = x + (sigmas[i + 1] - sigmas[i]) * model.predict(x, chain.times[i].expand(1), None)
    torch.testing.assert_close(walk(model, chain, noise, noisy=False), x)
    assert chain.note is not None
    assert "UniPC" in chain.note
    assert Chain(Gaussian(FlowMatchEulerDiscreteScheduler()), 5, SHAPE).note is None


def test_a_chain_without_levels_is_refused() -> None:
    class Bare(FlowMatchEulerDiscreteScheduler):
        def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
            super().set_timesteps(*args, **kwargs)
            self.sigmas = self.sigmas[:-1]

    with pytest.raises(ModelError, match="names no level for the end of each step"):
        Chain(Gaussian(Bare()), 5, SHAPE)


@pytest.mark.parametrize("kind", ["flow", "constant"])
def test_noise_keeps_the_marginals(kind: Any) -> None:
    """Many small steps end at the data's own mean and spread, with noise as without."""
    model = Gaussian(FlowMatchEulerDiscreteScheduler())
    noise = torch.randn(8, *SHAPE, 200, generator=torch.Generator().manual_seed(1)).movedim(-1, 1).flatten(0, 1)
    chain = Chain(model, 200, SHAPE, kind)
    found = walk(model, chain, noise, noisy=True)
    assert found.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert found.std().item() == pytest.approx(SPREAD, abs=0.02)
    assert (found - walk(model, chain, noise, noisy=False)).std() > 0.05, "the noise has moved the videos"


def test_the_likelihood_is_the_gaussians() -> None:
    mean, x = torch.randn(2, 3, *SHAPE).unbind(0)
    found = Step(mean, 0.3).log_prob(x)
    torch.testing.assert_close(found, torch.distributions.Normal(mean, 0.3).log_prob(x).mean((1, 2, 3, 4)))


@pytest.mark.parametrize("kind", ["flow", "constant"])
def test_a_step_written_plainly(kind: Any) -> None:
    model = Gaussian(FlowMatchEulerDiscreteScheduler())
    chain, (x, v) = Chain(model, 4, SHAPE, kind, 0.6), torch.randn(2, 1, *SHAPE).unbind(0)
    sigmas = model.new_scheduler(4, SHAPE).sigmas.tolist()
    for number in range(3):
        t, delta = sigmas[number], sigmas[number] - sigmas[number + 1]
        below = 1 - (sigmas[1] if number == 0 else t)
        sigma = 0.6 if kind == "constant" else 0.6 * math.sqrt(t / below)
        found = chain.step(number, x, v)
        torch.testing.assert_close(found.mean, x - delta * (v + sigma**2 / (2 * t) * (x + (1 - t) * v)))
        assert found.deviation == pytest.approx(sigma * math.sqrt(delta))


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_ddpm_step_is_that_of_ddim(eta: float, prediction: str) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False, timestep_spacing="trailing")
    model = Gaussian(scheduler)
    chain, (x, output, noise) = Chain(model, 5, SHAPE, level=eta), torch.randn(3, 1, *SHAPE).unbind(0)
    theirs = model.new_scheduler(5, SHAPE)
    for number in range(5):
        found = chain.step(number, x, output)
        expected = theirs.step(output, theirs.timesteps[number], x, eta=eta, variance_noise=noise).prev_sample
        torch.testing.assert_close(found.mean + found.deviation * noise, expected, atol=1e-4, rtol=1e-4)


def test_a_step_of_integers_ends_where_the_next_one_starts_and_the_last_one_without_noise() -> None:
    assert stochastic._ddpm_ends(torch.tensor([900, 600, 300])).tolist() == [600, 300, -1]
