"""Noising and its inverse, and agreement with the diffusers schedulers."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from vpo_kit.errors import ModelError
from vpo_kit.schedule import DDPMSchedule, FlowSchedule, from_scheduler

X = torch.randn(3, 4, 2, 5, 5, generator=torch.Generator().manual_seed(0))
EPS = torch.randn(3, 4, 2, 5, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_ddpm_is_what_diffusers_does(prediction_type: str) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction_type)
    schedule = from_scheduler(scheduler)
    t = torch.tensor([0, 500, 900])
    x_t = schedule.add_noise(X, EPS, t)
    torch.testing.assert_close(x_t, scheduler.add_noise(X, EPS, t))
    target = schedule.target(X, EPS, t)
    if prediction_type == "v_prediction":
        torch.testing.assert_close(target, scheduler.get_velocity(X, EPS, t))
    torch.testing.assert_close(schedule.to_clean(x_t, target, t), X, atol=1e-3, rtol=1e-3)


def test_flow() -> None:
    schedule = from_scheduler(FlowMatchEulerDiscreteScheduler())
    assert isinstance(schedule, FlowSchedule)
    t = torch.tensor([0.0, 0.3, 1.0])
    x_t = schedule.add_noise(X, EPS, t)
    torch.testing.assert_close(x_t[0], X[0])
    torch.testing.assert_close(x_t[2], EPS[2])
    torch.testing.assert_close(schedule.to_clean(x_t, schedule.target(X, EPS, t), t), X)
    torch.testing.assert_close(schedule.network_time(t), torch.tensor([0.0, 300.0, 1000.0]))


def test_a_place_on_the_axis_and_back() -> None:
    places = torch.linspace(0, 1, 51, dtype=torch.float64)
    for schedule in (FlowSchedule(), DDPMSchedule(torch.linspace(0.99, 0.01, 50))):
        t = schedule.at(places)
        torch.testing.assert_close(schedule.place(t), places, atol=0.021, rtol=0)
        levels = schedule.noise_level(t)
        assert (levels.diff() >= 0).all()
        assert levels.min() >= 0
        assert levels.max() <= 1


def test_the_level_follows_from_what_the_network_sees() -> None:
    for schedule in (FlowSchedule(), FlowSchedule(inverted=True), DDPMSchedule(torch.linspace(0.99, 0.01, 50))):
        t = schedule.at(torch.linspace(0, 1, 11))
        torch.testing.assert_close(schedule.level_at(schedule.network_time(t)), schedule.noise_level(t))


def test_wan_scheduler_is_a_flow() -> None:
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    assert isinstance(from_scheduler(scheduler), FlowSchedule)


def test_unknown_prediction_type() -> None:
    with pytest.raises(ModelError, match="'sample'"):
        from_scheduler(DDIMScheduler(prediction_type="sample"))


def test_a_chain_that_visits_times_twice_is_refused() -> None:
    """Heun takes each step in two: a chain entered halfway would start in the middle of one and end far off."""
    with pytest.raises(ModelError, match=r"FlowMatchHeunDiscreteScheduler does not work here.*FlowMatchEuler"):
        from_scheduler(FlowMatchHeunDiscreteScheduler())
    with pytest.raises(ModelError, match=r"PNDMScheduler does not work here.*DDIM"):
        from_scheduler(PNDMScheduler())
