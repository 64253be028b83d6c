"""DiffusionNFT: its identities, and the same loss written plainly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.brief_runs import run_once
from tests.support.rollout_member import forget, member
from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.methods.nft import NFT, NFTConfig, nft_loss, weighed
from vpo_kit.models.base import VideoModel
from vpo_kit.training.lora import LoraPolicy, Start


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


@pytest.mark.parametrize("mixture", [1.0, 0.1])
def test_half_good_and_half_bad_is_no_gradient_at_the_old_policy(model: VideoModel, mixture: float) -> None:
    """With scores all alike r is 1/2; without the anchor the two mixtures then pull apart evenly."""
    sizes = []
    for scores in (torch.tensor([1.0, 0.5, 0.0]), torch.ones(3)):
        with member(model, "nft", mixture=mixture, anchor=0.0) as one:
            fresh = one.method._roll_out(one.batch)
            advantage = (scores - scores.mean()) / scores.std(correction=0).clamp_min(1e-6)
            fresh.tensors["good"].copy_((advantage.repeat(2) / 10 + 0.5).clamp(0, 1))
            one.method._fresh = fresh
            output = one.method.update(fresh, 0)
            assert output.loss is not None
            output.loss.backward()  # type: ignore[no-untyped-call]
            sizes.append(torch.cat([p.grad.flatten() for p in one.policy.parameters if p.grad is not None]).norm())
    assert sizes[0] > 1e-4
    assert sizes[1] < 1e-5 * sizes[0]


def test_the_loss_written_plainly(model: VideoModel) -> None:
    with member(model, "nft", moved=0.02, anchor=0.3, mixture=0.5) as one:
        output = one.method.step(one.batch)
        assert output.loss is not None
        fresh = one.method._fresh
        assert fresh is not None
        rows = one.method._draws.rows(one.context, 0, fresh.tensors["x"], fresh.conditions, fresh.numbers.tolist())  # type: ignore[attr-defined]
        total = 0.0
        with torch.no_grad():
            new = model.predict(rows.x_t, rows.time, rows.conditions)
            with one.policy.reference():
                old = model.predict(rows.x_t, rows.time, rows.conditions)
        for i in range(6):
            t, r = rows.t[i].item(), fresh.tensors["good"][i].item()
            plus = rows.x_t[i] - t * (0.5 * old[i] + 0.5 * new[i]) - rows.x[i]
            minus = rows.x_t[i] - t * (1.5 * old[i] - 0.5 * new[i]) - rows.x[i]
            fitted = [float(e.square().mean() / e.abs().mean()) for e in (plus, minus)]
            total += 5.0 / 0.5 * (r * fitted[0] + (1 - r) * fitted[1]) / 6
            total += 0.3 * float((new[i] - old[i]).square().mean()) / 6  # the old policy is still where the run began
        assert float(output.loss.detach()) == pytest.approx(total, rel=1e-5)
        assert set(output.report) >= {"old_distance", "anchor", "informative", "reward_mean"}


def test_worked_by_hand() -> None:
    # errors 2 and 4 everywhere: squares over absolute values are 2 and 4; 5 / 1 * (.75 * 2 + .25 * 4) = 12.5
    x = torch.zeros(1, 1, 1, 2, 2)
    loss = nft_loss(weighed(x + 2, x), weighed(x - 4, x), torch.tensor([0.75]), NFTConfig())
    assert loss.item() == pytest.approx(12.5)
    # however small the error is; one that is met gives nothing
    assert [weighed(x + by, x).item() for by in (1e-3, 1e-4, 0.0)] == pytest.approx([1e-3, 1e-4, 0.0])
    # below the least weight the square alone counts: (5e-6)^2 / 1e-5
    assert weighed(x + 5e-6, x).item() == pytest.approx(2.5e-6)


@pytest.mark.parametrize("size", [1, 4])
def test_micro_batches_give_the_same_gradient(model: VideoModel, size: int) -> None:
    found = []
    for micro in (None, size):
        with member(model, "nft", moved=0.02, micro_batch_size=micro, num_draws=2, anchor=0.1) as one:
            found.append(one.gradient())
    assert (found[0] - found[1]).norm() < 1e-5 * found[0].norm()


@pytest.mark.parametrize("sampled_by", ["old", "policy"])
def test_resume_is_exact_and_the_old_policy_lags_behind(model: VideoModel, tmp_path: Path, sampled_by: str) -> None:
    settings = {"old_growth": 0.4, "sampled_by": sampled_by}
    whole = run_once(model, tmp_path / "whole", 7, settings, kind=NFT)
    run_once(model, tmp_path / "parts", 5, settings, kind=NFT)  # in the middle of a rollout's updates
    assert run_once(model, tmp_path / "parts", 7, settings, kind=NFT) == whole
    assert whole[0]["old_distance"] == 0
    assert whole[2]["old_distance"] == 0, "the first decay is zero: a hard copy"
    assert all(whole[step]["old_distance"] > 0 for step in (1, 3, 4, 5, 6))


def test_the_beginning_is_a_third_state(model: VideoModel) -> None:
    """Bare, or the LoRA that the run began with; whatever policy and reference are by then."""
    x, t = torch.randn(1, *model.latent_shape(9, 32, 32)), torch.tensor([500.0])
    conditions = model.encode_prompts(["a red circle moving right slowly on a navy background"])
    bare = model.predict(x, t, conditions)
    settings, found = Lora(rank=4, alpha=8), {}
    for start in (None, Start({}, 4, 8.0, list(model.lora_targets))):
        if start is not None:
            start = Start({k: v + 0.05 for k, v in found["state"].items()}, 4, 8.0, start.targets)
        policy = LoraPolicy(model, settings, 0, start)
        try:
            first = model.predict(x, t, conditions).detach()
            found["state"] = policy.state()
            for _ in range(2):
                with torch.no_grad():
                    for parameter in policy.parameters:
                        parameter.add_(0.03)
                policy.refresh_reference(0.0)
            moved = model.predict(x, t, conditions).detach()
            with policy.beginning():
                assert torch.equal(model.predict(x, t, conditions), first)
            with policy.reference():
                torch.testing.assert_close(model.predict(x, t, conditions), moved)
            assert torch.equal(model.predict(x, t, conditions), moved)
            assert all(parameter.requires_grad for parameter in policy.parameters)
            assert torch.equal(first, bare) == (start is None)
        finally:
            forget(model)
