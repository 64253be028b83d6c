"""Steps that skip blocks: never with a graph, nothing left over, and as exact as the threshold is small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.commands import fails
from vpo_kit import models
from vpo_kit.errors import ConfigError
from vpo_kit.methods.grpo import GRPOConfig
from vpo_kit.models.base import VideoModel
from vpo_kit.models.step_cache import check, step_cache
from vpo_kit.sampler import Guidance, draw_noise, sample
from vpo_kit.testing.families import FAMILIES

TEXTS = ["a red circle moving right slowly", "a blue square circling quickly"]


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


@pytest.fixture(scope="module")
def sprites() -> VideoModel:
    """Trained, so that its blocks say again what they have said: random ones change by nothing or by all."""
    return models.load("sprites")


def sampled(model: VideoModel, threshold: float | None, scale: float = 4.0) -> tuple[Tensor, int]:
    """Latents of two prompts, and how often the last block was gone through."""
    went = 0

    def count(*_: Any) -> None:
        nonlocal went
        went += 1

    hook = model.network.blocks[-1].attn1.to_q.register_forward_hook(count)
    noise = draw_noise(model.latent_shape(*model.settings.size), [1, 2])
    guidance = Guidance(scale, model.encode_prompts(["blurry"]))
    try:
        with torch.no_grad(), step_cache(model, threshold):
            found = sample(model, model.encode_prompts(TEXTS), noise=noise, steps=8, guidance=guidance)
    finally:
        hook.remove()
    return found, went


def test_as_exact_as_the_threshold_is_small(sprites: VideoModel) -> None:
    plain, every = sampled(sprites, None)
    same, all_of_them = sampled(sprites, 1e-9)
    assert torch.equal(plain, same)
    assert every == all_of_them == 2 * 8
    near, fewer = sampled(sprites, 0.3)
    far, fewest = sampled(sprites, 1e9)
    assert every > fewer > fewest == 2  # each branch of guidance goes through all blocks once
    errors = [float((found - plain).square().mean()) for found in (near, far)]
    assert 0 < errors[0] < errors[1]
    assert torch.equal(sampled(sprites, None)[0], plain)  # nothing is left over


def test_branches_do_not_share_what_they_remember(model: VideoModel) -> None:
    """With a threshold that always skips, the difference of the first step's passes is kept, and guidance with it."""
    guided, unguided = sampled(model, 1e9)[0], sampled(model, 1e9, scale=1.0)[0]
    assert not torch.equal(guided, unguided)
    assert "predict" not in vars(model)


def test_an_error_inside_takes_the_hooks_off(model: VideoModel) -> None:
    with pytest.raises(RuntimeError, match="inside"), step_cache(model, 0.5):
        raise RuntimeError("inside")
    assert not model.network.is_cache_enabled
    assert "predict" not in vars(model)


def test_what_cannot_skip_is_refused(tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FAMILIES["modelscope"].build().save_pretrained(tmp_path / "unet", safe_serialization=True)
    with pytest.raises(ConfigError, match="diffusers cannot skip blocks of UNet3DConditionModel: leave it out"):
        check(models.load(str(tmp_path / "unet")))
    with pytest.raises(ValueError, match="a step's likelihood is that of a whole pass"):
        GRPOConfig(rollout_cache=0.1)
    words = ["train", "--model", tiny_wan, "--method", "online", "--output", tmp_path / "run", "--set", "compile=true"]
    words += ["--set", "evaluation.num_prompts=0", "--prompts", tmp_path / "prompts.txt"]
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    code, said = fails(capsys, *words, "--set", "method.rollout_cache=0.1", "--set", "selection.strengths=[]")
    assert (code, "a compiled block cannot be skipped" in said) == (2, True), said
