"""Reward-weighted regression: the weights, and that nothing else differs from fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.brief_runs import run_once
from tests.support.rollout_member import member
from vpo_kit import models
from vpo_kit.methods.advantages import advantages, shares
from vpo_kit.methods.rwr import RWR
from vpo_kit.models.base import VideoModel
from vpo_kit.processes import Processes


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


def test_advantages_are_standard_scores_and_equal_scores_have_none() -> None:
    found = advantages(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    deviation = (2 / 3) ** 0.5
    torch.testing.assert_close(found, torch.tensor([[-1 / deviation, 0, 1 / deviation], [0, 0, 0]]))
    near = advantages(torch.tensor([[0.5000001, 0.5, 0.5004, 0.50011]]))
    assert abs(float(near.double().sum())) < 1e-6, "also where they hardly differ"


def test_weights_worked_by_hand() -> None:
    # exp(0), exp(1), exp(2) = 1, 2.718, 7.389, of mean 3.7024
    found = shares(torch.tensor([0.0, 2.0, 4.0]), 2.0, Processes())
    torch.testing.assert_close(found, torch.tensor([0.27010, 0.73418, 1.99572]), atol=1e-4, rtol=0)
    torch.testing.assert_close(shares(torch.tensor([700.0, 700.0]), 0.1, Processes()), torch.ones(2))


def test_the_loss_written_plainly(model: VideoModel) -> None:
    with member(model, "rwr", moved=0.02, temperature=0.5) as one:
        output = one.method.step(one.batch)
        fresh = one.method._fresh
        assert fresh is not None
        assert output.loss is not None
        rows = one.method._draws.rows(one.context, 0, fresh.tensors["x"], fresh.conditions, fresh.numbers.tolist())  # type: ignore[attr-defined]
        with torch.no_grad():
            apart = model.predict(rows.x_t, rows.time, rows.conditions) - rows.target
        weights = fresh.tensors["weight"]
        assert weights.mean().item() == pytest.approx(1)
        assert weights.max() > 1.5
        plain = sum(float(weights[i] * apart[i].square().mean()) for i in range(6)) / 6
        assert float(output.loss.detach()) == pytest.approx(plain, rel=1e-6)


def test_rated_clips_written_plainly(model: VideoModel) -> None:
    """Four clips with ratings: weights by standing or by the rating itself, one error each, no rollout, no reward."""
    for of, values in (("advantage", [0.5, -0.5, 0.0, 0.0]), ("reward", [4.0, 2.0, 3.0, 3.0])):
        with member(model, "rwr", moved=0.02, temperature=0.5, of=of) as one:
            count = len(one.batch.positions)
            clip = torch.randn(count, *model.latent_shape(9, 32, 32), generator=torch.Generator().manual_seed(0))
            rated = {"clip": clip, "rating": torch.tensor([4.0, 2.0, 3.0, 3.0])[:count]}
            rated["standing"] = torch.tensor([0.5, -0.5, 0.0, 0.0])[:count]  # spread otherwise than the ratings
            output = one.method.step(replace(one.batch, tensors=rated))
            draws = one.method._rated  # type: ignore[attr-defined]
            rows = draws.rows(one.context, 0, clip, one.batch.conditions, list(one.batch.positions))
            with torch.no_grad():
                apart = model.predict(rows.x_t, rows.time, rows.conditions) - rows.target
            weights = (torch.tensor(values[:count]) / 0.5).exp()
            weights = weights / weights.mean()
            plain = sum(float(weights[i] * apart[i].square().mean()) for i in range(count)) / count
            assert float(output.loss.detach()) == pytest.approx(plain, rel=1e-5)
            assert set(output.report) >= {"weight_square"}
            assert "reward_mean" not in output.report


@pytest.mark.parametrize("size", [1, 4])
def test_micro_batches_give_the_same_gradient(model: VideoModel, size: int) -> None:
    found = []
    for micro in (None, size):
        with member(model, "rwr", moved=0.02, micro_batch_size=micro, num_draws=2) as one:
            found.append(one.gradient())
    assert (found[0] - found[1]).norm() < 1e-5 * found[0].norm()


def test_resume_is_exact(model: VideoModel, tmp_path: Path) -> None:
    settings = {"of": "reward", "temperature": 0.01}
    whole = run_once(model, tmp_path / "whole", 5, settings, kind=RWR)
    run_once(model, tmp_path / "parts", 3, settings, kind=RWR)
    assert run_once(model, tmp_path / "parts", 5, settings, kind=RWR) == whole
    assert whole[0]["weight_square"] >= 1
