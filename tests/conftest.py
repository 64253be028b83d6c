"""Real parts for the tests: tiny pipelines in the real layout, saved to disk and loaded by the production path."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support import kept_videos
from vpo_kit.sprites import world


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What vpo keeps between runs, for the processes that tests start too."""
    os.environ["VPO_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _no_videos_left() -> Iterator[None]:
    yield
    kept_videos.forget()


PROMPTS = [scene.caption for scene in world.scenes(held_out=False)[::100]]


@pytest.fixture(scope="session")
def tiny_wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `WanPipeline` folder with random weights: 9 frames of 32 x 32, latents 8 x 3 x 4 x 4."""
    from diffusers import WanPipeline, WanTransformer3DModel

    from vpo_kit.sprites.build import components

    torch.manual_seed(0)
    tokenizer = components.tokenizer()
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=8, out_channels=8,
        text_dim=64, freq_dim=32, ffn_dim=48, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=components.text_encoder(len(tokenizer)),
        vae=components.autoencoder(latents_mean=[0.1] * 8, latents_std=[0.5] * 8),
        scheduler=components.scheduler(),
        transformer=transformer,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-wan"
    pipeline.save_pretrained(folder, safe_serialization=True)
    sizes = {"frames": 9, "height": 32, "width": 32, "fps": 8, "steps": 3, "guidance": 3.0}
    (folder / "vpo.json").write_text(json.dumps(sizes))
    (folder / "prompts").mkdir()
    for split in ("train", "heldout"):
        (folder / "prompts" / f"{split}.txt").write_text("\n".join(PROMPTS) + "\n")
    return folder
