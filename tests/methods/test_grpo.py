"""Flow-GRPO: ratios, gradients against closed forms, exact resume."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.brief_runs import run_once
from tests.support.rollout_member import member
from vpo_kit import models
from vpo_kit.errors import ConfigError
from vpo_kit.methods.advantages import advantages
from vpo_kit.methods.grpo import GRPO, grpo_loss
from vpo_kit.models.base import VideoModel


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


@pytest.mark.parametrize("settings", [{}, {"sde": "constant", "same_start": True}, {"branch": 0.9}])
def test_the_first_ratio_is_one(model: VideoModel, settings: dict[str, object]) -> None:
    with member(model, "grpo", moved=0.02, rollout_steps=4, micro_batch_size=6, **settings) as one:
        output = one.method.step(one.batch)
        for part in output.parts or ():
            part.backward()  # type: ignore[no-untyped-call]
        assert output.report["ratio_off"] < 1e-6
        assert output.report["ratio_clipped"] == 0
        fresh = one.method._fresh
        assert fresh is not None
        starts = fresh.tensors["x"][:, 0].view(2, 3, -1)
        shared = bool((starts - starts[:, :1]).abs().max() == 0)
        assert shared == ("same_start" in settings)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_two_arms(p: float) -> None:
    """A bandit of two arms of which one pays: over all groups of two the mean gradient is that of the expected reward,
    which in the logit is p (1 - p), whatever the group's normalisation makes of it.
    """
    logit = torch.logit(torch.tensor(p, dtype=torch.float64)).requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for arms in itertools.product([1, 0], repeat=2):
        chance = 1.0
        likelihood: list[Tensor] = []
        for arm in arms:
            likelihood.append(torch.nn.functional.logsigmoid(logit if arm else -logit))
            chance *= p if arm else 1 - p
        found = torch.stack(likelihood)
        loss, _ = grpo_loss((found - found.detach()).exp(), advantages(torch.tensor([arms]).double())[0], 0.2)
        total = total + chance * loss.mean()
    (gradient,) = torch.autograd.grad(total, logit)
    assert -float(gradient) == pytest.approx(p * (1 - p))


def test_the_clip_takes_the_gradient_of_what_has_gone_far_enough() -> None:
    ratio = torch.tensor([1.3, 1.3, 0.7, 0.7, 1.0], requires_grad=True)
    loss, beyond = grpo_loss(ratio, torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0]), 0.1)
    torch.testing.assert_close(loss.detach(), torch.tensor([-1.1, 1.3, -0.7, 0.9, -2.0]))
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert ratio.grad is not None
    assert ratio.grad.tolist() == [0.0, 1.0, -1.0, 0.0, -2.0]
    assert beyond.tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("size", [1, 4])
def test_micro_batches_give_the_same_gradient(model: VideoModel, size: int) -> None:
    found = []
    for micro in (None, size):
        with member(model, "grpo", moved=0.02, micro_batch_size=micro, kl=0.1, clip=0.1) as one:
            found.append(one.gradient())
    assert found[0].norm() > 0
    assert (found[0] - found[1]).norm() < 1e-5 * found[0].norm()


def test_the_loss_written_plainly(model: VideoModel) -> None:
    """One rollout, a policy that then moves, and the second update on it."""
    with member(model, "grpo", moved=0.02, rollout_steps=3, kl=0.5, clip=0.001, rollout_guidance=1.0) as one:
        one.method.step(one.batch)
        fresh = one.method._fresh
        assert fresh is not None
        one.move(0.01)
        output = one.method.step(one.batch.at(1))
        loss = sum(float(part.detach()) for part in output.parts or ())
        sigmas, times = (
            model.new_scheduler(3, model.latent_shape(*one.context.sampling.size)).sigmas,
            model.new_scheduler(3, model.latent_shape(*one.context.sampling.size)).timesteps,
        )
        total, rows = 0.0, 0
        for i, s in itertools.product(range(6), range(2)):
            assert fresh.tensors["steps"][i].tolist() == [0, 1]
            x, new = fresh.tensors["x"][i : i + 1, s], fresh.tensors["next"][i : i + 1, s]
            t, end = float(sigmas[s]), float(sigmas[s + 1])
            sigma = 0.7 * (t / (1 - float(sigmas[1]))) ** 0.5
            means = []
            with torch.no_grad():
                means.append(model.predict(x, times[s : s + 1], fresh.conditions[[i]]))
                with one.policy.reference():
                    means.append(model.predict(x, times[s : s + 1], fresh.conditions[[i]]))
            own, other = (x - (t - end) * (v + sigma**2 / (2 * t) * (x + (1 - t) * v)) for v in means)
            deviation = sigma * (t - end) ** 0.5
            likelihood = torch.distributions.Normal(own, deviation).log_prob(new).mean()
            ratio = float((likelihood - fresh.tensors["likelihood"][i, s]).exp())
            advantage = float(fresh.tensors["advantage"][i])
            total -= min(ratio * advantage, min(max(ratio, 0.999), 1.001) * advantage)
            total += 0.5 * float((own - other).square().mean()) / (2 * deviation**2)
            rows += 1
        assert loss == pytest.approx(total / rows, abs=2e-7)  # its terms are about 1, in single precision
        assert output.report["ratio_off"] > 1e-5


def test_a_window_moves_on_and_the_other_steps_have_no_noise(model: VideoModel) -> None:
    settings = {"window": 2, "window_every": 2, "updates_per_rollout": 1}
    with member(model, "grpo", rollout_steps=5, **settings) as one:
        seen = []
        for step in range(8):
            one.method.prepare(step)
            seen.append((one.method._noisy, one.method._trained))  # type: ignore[attr-defined]
        assert [noisy[0] for noisy, _ in seen] == [0, 0, 1, 1, 2, 2, 0, 0]
        assert all(noisy == trained and len(noisy) == 2 for noisy, trained in seen)
    with member(model, "grpo", rollout_steps=6, step_share=0.6) as one:
        one.method.prepare(0)
        assert one.method._noisy == [0, 1, 2, 3, 4]  # type: ignore[attr-defined]
        assert len(one.method._trained) == 3  # type: ignore[attr-defined]


def test_too_few_steps_are_refused(model: VideoModel) -> None:
    with pytest.raises(ConfigError, match="2 steps of the chain can have noise"), member(model, "grpo", window=3):
        pass


@pytest.mark.parametrize("settings", [{"kl": 0.1, "reference_update": "ema", "branch": 0.95}, {"window": 1}])
def test_resume_is_exact(model: VideoModel, tmp_path: Path, settings: dict[str, object]) -> None:
    whole = run_once(model, tmp_path / "whole", 5, settings, kind=GRPO)
    run_once(model, tmp_path / "parts", 3, settings, kind=GRPO)
    assert run_once(model, tmp_path / "parts", 5, settings, kind=GRPO) == whole
    assert whole[0]["ratio_off"] < 1e-6 < whole[1]["ratio_off"]
