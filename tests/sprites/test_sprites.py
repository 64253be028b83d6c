"""The embedded model: what ships, how it was measured, and that diffusers alone loads it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.folders import EMBEDDED
from vpo_kit.prompts import read_prompts
from vpo_kit.sampler import Guidance, chain_levels, draw_noise, sample
from vpo_kit.sprites import world
from vpo_kit.sprites.build import measure, train
from vpo_kit.sprites.truth import SpriteTruth
from vpo_kit.training.lora import LoraPolicy

FOLDER = EMBEDDED["sprites"]
PROMPT = "a blue cross moving left quickly on a gray background"


def test_what_ships_is_small_and_safe() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16 * 2**20
    assert {path.suffix for path in files} == {".json", ".safetensors", ".txt", ".yaml"}


def test_prompts_are_the_worlds_split() -> None:
    splits = ("train", "validation", "heldout")
    sides = {split: read_prompts(FOLDER / "prompts" / f"{split}.txt") for split in splits}
    scenes = [*world.scenes(held_out=False), *world.scenes(held_out=True)]
    for split, prompts in sides.items():
        assert prompts == [scene.caption for scene in scenes if scene.split == split]
    assert sides["heldout"] == [scene.caption for scene in world.scenes(held_out=True)]
    assert [len(sides[split]) for split in splits] == [688, 128, 144]
    combinations = [{(s.colour, s.shape, s.motion) for s in map(world.parse, prompts)} for prompts in sides.values()]
    assert not any(one & other for one, other in itertools.combinations(combinations, 2))
    with pytest.raises(ValueError, match="not a caption"):
        world.parse("a red cat")


@pytest.mark.parametrize("steps", [8, 16, 50])
def test_the_last_step_of_the_chain_matters(steps: int) -> None:
    """A gradient through the last step alone trains nothing where that step moves next to nothing."""
    model = models.load("sprites")
    levels = chain_levels(model, steps, (8, 5, 8, 8))
    share = 1 / steps
    assert float(levels[-1]) == pytest.approx(2 * share / (1 + share), abs=3e-3)  # the shift of 2, applied once


def test_flaw_rates_are_the_documented_ones() -> None:
    clips = list(world.training_clips(600, seed=5))
    for speed, rate in world.FLAW_RATE.items():
        flawed = [bool(clip.flaws) for clip in clips if clip.scene.speed == speed]
        assert np.mean(flawed) == pytest.approx(rate, abs=0.07)
    assert not any(clip.scene.held_out for clip in clips)
    windows = [flaw for clip in clips for flaw in clip.flaws]
    assert all(1 <= flaw.start < flaw.end <= world.NUM_FRAMES for flaw in windows)


def test_clips_repeat() -> None:
    first, second = (list(world.training_clips(3, seed=1)) for _ in range(2))
    assert all(np.array_equal(a.video, b.video) for a, b in zip(first, second, strict=True))


def test_measured_quality_reaches_the_bars() -> None:
    quality = json.loads((FOLDER.parent / "quality.json").read_text())
    found, data = quality["held_out"], quality["training_clips"]
    for key, bar in {"colour": 0.95, "direction": 0.90, "shape": 0.80, "speed_class": 0.85}.items():
        assert found[key] >= bar
    assert abs(found["flawed"] - data["flawed"]) <= data["flawed"] / 3


def test_quality_holds_on_a_few_prompts() -> None:
    """24 prompts, so the floors are lower than the bars: this finds a broken file, not a worse model."""
    model = models.load("sprites")
    captions = [scene.caption for scene in world.scenes(held_out=True)[::6]]
    found = measure.means(SpriteTruth(), measure.sampled(model, captions, 1, 24), captions)
    assert found["colour"] >= 0.9
    assert found["shape"] >= 0.8
    assert found["direction"] >= 0.7
    assert 0.1 <= found["flawed"] <= 0.8


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_same_video_as_diffusers_with_and_without_lora(tmp_path: Path, guidance: float) -> None:
    from diffusers import WanPipeline

    model = models.load("sprites")
    noise = draw_noise(model.latent_shape(17, 64, 64), [3])

    def ours() -> torch.Tensor:
        scale = Guidance(guidance, model.encode_prompts([""]))
        with torch.no_grad():
            latents = sample(model, model.encode_prompts([PROMPT]), noise=noise, steps=4, guidance=scale)
            return model.decode(latents)

    pipeline = WanPipeline.from_pretrained(FOLDER)
    pipeline.set_progress_bar_config(disable=True)

    def theirs() -> torch.Tensor:
        made: torch.Tensor = pipeline(
            PROMPT, latents=noise.clone(), num_inference_steps=4, guidance_scale=guidance, height=64, width=64,
            num_frames=17, max_sequence_length=16, output_type="pt",
        ).frames  # fmt: skip
        return made

    plain = ours()
    assert float(((plain == 0) | (plain == 1)).float().mean()) < 0.01  # saturated, as docs/methods.md says
    assert float((plain - theirs()).abs().max()) < 1e-4
    policy = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in policy.parameters:
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    policy.export(tmp_path)
    changed = ours()
    pipeline.load_lora_weights(str(tmp_path))
    assert float((changed - plain).abs().max()) > 0.01
    assert float((changed - theirs()).abs().max()) < 1e-4


def test_training_of_the_parts_goes_on_after_a_stop(tmp_path: Path) -> None:
    def fit(folder: str, stop_at: int | None = None) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

        def loss(step: int) -> torch.Tensor:
            if step == stop_at:
                raise InterruptedError
            x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            value: torch.Tensor = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
            return value

        train.fit(model, loss, steps=12, lr=0.01, folder=tmp_path / folder, name="part", save_every=5, ema=0.9)
        return model

    whole = fit("whole")
    with pytest.raises(InterruptedError):
        fit("parts", stop_at=8)
    parts = fit("parts")
    for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True):
        assert torch.equal(a, b)
