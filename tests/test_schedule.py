"""Noising and its inverse, and agreement with the diffusers schedulers."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

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


def test_times_are_in_range_and_repeat() -> None:
    for schedule in (FlowSchedule(), DDPMSchedule(torch.linspace(0.99, 0.01, 50))):
        drawn = [schedule.sample_t(200, torch.Generator().manual_seed(3)) for _ in range(2)]
        assert torch.equal(*drawn)
        assert drawn[0].min() >= 0
        assert drawn[0].max() <= (1 if isinstance(schedule, FlowSchedule) else 49)


def test_wan_scheduler_is_a_flow() -> None:
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    assert isinstance(from_scheduler(scheduler), FlowSchedule)


def test_unknown_prediction_type() -> None:
    with pytest.raises(ModelError, match="'sample'"):
        from_scheduler(DDIMScheduler(prediction_type="sample"))
