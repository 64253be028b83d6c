"""The build's parts: what it would write is what ships, and clips are the same wherever one begins with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from vpo_kit.folders import EMBEDDED
from vpo_kit.prompts import read_prompts
from vpo_kit.sprites.build.assemble import SHARD, SPRITES, encode_clips
from vpo_kit.sprites.build.components import autoencoder
from vpo_kit.sprites.build.train import normalised, pixels

FOLDER = EMBEDDED["sprites"]


def test_captions_and_words_are_those_that_ship() -> None:
    for split, captions in SPRITES.captions.items():
        assert read_prompts(FOLDER / "prompts" / f"{split}.txt") == captions
    shipped = json.loads((FOLDER / "tokenizer" / "tokenizer.json").read_text())
    assert json.loads(SPRITES.tokenizer.backend_tokenizer.to_str())["model"] == shipped["model"]


def test_clips_are_the_same_wherever_one_begins() -> None:
    whole, later = list(SPRITES.clips(4, 7, 0)), list(SPRITES.clips(2, 7, 2))
    assert [clip.caption for clip in whole[2:]] == [clip.caption for clip in later]
    assert all(np.array_equal(a.video, b.video) for a, b in zip(whole[2:], later, strict=True))


def test_latents_are_kept_by_shards_and_normalised_as_the_autoencoder_says(tmp_path: Path) -> None:
    vae = autoencoder().eval()
    latents, captions = encode_clips(vae, SPRITES, tmp_path, 2)
    assert latents.shape == (2, 8, 5, 8, 8)
    assert captions == [clip.caption for clip in SPRITES.clips(2, 7, 0)]
    assert [path.name for path in sorted((tmp_path / "latents").iterdir())] == ["000000.json", "000000.safetensors"]
    assert SHARD > 2
    vae.register_to_config(latents_mean=[1.0] * 8, latents_std=[2.0] * 8)
    assert float((normalised(latents, vae) * 2 + 1 - latents.float()).abs().max()) < 1e-5
    video = next(SPRITES.clips(1, 7, 0)).video
    assert pixels(video).shape == (3, 17, 64, 64)
    assert float(pixels(video).min()) >= -1
