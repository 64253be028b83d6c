"""The small decoder: its shapes, that it is like the autoencoder to judges, and who may use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.folders import EMBEDDED, prompts_of
from vpo_kit.methods.base import Batch
from vpo_kit.methods.online import Online, OnlineConfig
from vpo_kit.models.base import VideoModel
from vpo_kit.models.preview import FOLDER, WEIGHTS, PreviewDecoder, PreviewShape, load_preview, save_preview
from vpo_kit.prompts import read_prompts
from vpo_kit.rewards.vqa import VQA
from vpo_kit.sampler import draw_noise, sample
from vpo_kit.testing.rewards import Brightness
from vpo_kit.testing.steps import context_of
from vpo_kit.training.lora import LoraPolicy


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return models.load("sprites")


@pytest.mark.parametrize(("stride", "causal", "frames"), [(4, True, 9), (4, False, 12), (8, True, 17), (1, True, 3)])
def test_frames_and_sides_are_the_autoencoders(stride: int, causal: bool, frames: int) -> None:
    decoder = PreviewDecoder(
        PreviewShape(channels=5, temporal_stride=stride, causal=causal, widths=(16, 8, 8), blocks=1)
    )
    assert decoder(torch.randn(2, 5, 3, 4, 6)).shape == (2, frames, 3, 32, 48)


def test_clips_of_a_batch_do_not_meet() -> None:
    decoder = PreviewDecoder(PreviewShape(channels=4, widths=(16, 8, 8), blocks=2)).eval()
    latents = torch.randn(3, 4, 3, 4, 4)
    with torch.no_grad():
        together, alone = decoder(latents), torch.cat([decoder(part) for part in latents.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_judge_sees_what_it_sees_through_the_autoencoder(model: VideoModel) -> None:
    """Of the candidates of a prompt: what a rollout asks."""
    prompts = [prompt for prompt in read_prompts(prompts_of("sprites", "heldout") or Path())[:3] for _ in range(6)]
    shape, judge = model.latent_shape(17, 64, 64), VQA()
    noise = draw_noise(shape, range(len(prompts)), model.device)
    with torch.no_grad():
        latents = sample(model, model.encode_prompts(prompts), noise=noise, steps=5)
        true, seen = model.decode(latents), model.look(latents)
        scores = [judge(video, prompts, fps=8).score.view(3, 6) for video in (true, seen)]
    assert float((true - seen).abs().mean()) < 0.02
    centred = torch.stack([(side - side.mean(1, keepdim=True)).flatten() for side in scores])
    assert float(torch.corrcoef(centred)[0, 1]) > 0.8


def test_what_was_measured_ships_with_it() -> None:
    found = json.loads((EMBEDDED["sprites"].parent / "preview.json").read_text(encoding="utf-8"))
    assert found["vqa"]["margin kept"] > 0.9
    assert found["gold"]["margin kept"] > 0.8  # a judge that it was not chosen by either


def test_rollouts_alone_go_through_it(model: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, decoded = LoraPolicy(model, Lora(rank=4), seed=0), []
    inner = model.decode_clip

    def count(latents: Tensor) -> Tensor:
        decoded.append(len(latents))
        return inner(latents)

    monkeypatch.setattr(model, "decode_clip", count)
    prompts = read_prompts(prompts_of("sprites", "train") or Path())[:1]
    batch = Batch(
        step=0,
        settings=model.settings,
        prompts=prompts,
        conditions=model.encode_prompts(prompts),
        positions=[0],
        indices=[0],
        visits=[0],
    )
    try:
        for decoder, seen in (("preview", 0), ("autoencoder", 2)):
            chosen = OnlineConfig.model_validate({"num_candidates": 2, "rollout_steps": 1, "rollout_decoder": decoder})
            Online(chosen, context_of(policy, Brightness())).step(batch)
            assert sum(decoded) == seen
    finally:
        model.network.delete_adapters(["default"])


def test_a_model_without_one_says_so(tiny_wan: Path) -> None:
    bare = models.load(str(tiny_wan))
    with pytest.raises(ConfigError, match="no preview_decoder"):
        bare.look(torch.zeros(1, 8, 3, 4, 4))
    policy = LoraPolicy(bare, Lora(rank=4), seed=0)
    with pytest.raises(ConfigError, match=r"rollout_decoder=preview: .* has no preview_decoder in its folder"):
        Online(OnlineConfig(rollout_decoder="preview"), context_of(policy, Brightness()))


def test_a_damaged_one_is_named(tmp_path: Path) -> None:
    save_preview(PreviewDecoder(PreviewShape(channels=4, widths=(16, 8, 8), blocks=1)), tmp_path)
    assert load_preview(tmp_path, torch.device("cpu")) is not None
    weights = tmp_path / FOLDER / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="preview_decoder"):
        load_preview(tmp_path, torch.device("cpu"))
