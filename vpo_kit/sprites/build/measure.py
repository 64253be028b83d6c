"""How good the model of a made world is, by the world's trackers, against the clips it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpo_kit.models.base import VideoModel
from vpo_kit.registry import TRUTHS
from vpo_kit.sampler import derive_seed, draw_noise, sample
from vpo_kit.sprites.build.assemble import MadeWorld
from vpo_kit.truth import Truth

KEYS = ("colour", "direction", "shape", "speed_class", "background", "flawed", "speed")


def quality(
    model: VideoModel, made: MadeWorld, seed: int, *, batch: int = 36, training_clips: int = 400
) -> dict[str, Any]:
    """Trackers on one video for each held-out prompt, on training clips, and on those as the autoencoder gives them.

    The last shows how much of a false alarm is the autoencoder's: `clean_decoded` are clips without a flaw.
    """
    truth: Truth = TRUTHS.load(made.truth)()
    clips = list(made.clips(training_clips, 99, 0))
    clean = [clip for clip in clips if not clip.flawed][:100]
    video = torch.stack([torch.from_numpy(clip.video) for clip in clean])
    with torch.no_grad():
        decoded = torch.cat([model.decode(model.encode(part)) for part in torch.split(video, batch)])
    held_out = made.captions["heldout"]
    shown = torch.from_numpy(np.stack([clip.video for clip in clips]))
    return {
        "held_out": means(truth, sampled(model, held_out, seed, batch), held_out),
        "training_clips": means(truth, shown, [clip.caption for clip in clips]),
        "clean_decoded": means(truth, decoded, [clip.caption for clip in clean]),
        "autoencoder_l1": float((decoded - video).abs().mean()),
        "seed": seed,
    }


@torch.no_grad()
def sampled(model: VideoModel, captions: Sequence[str], seed: int, batch: int) -> Tensor:
    """A video ``[B, F, 3, H, W]`` of each caption, by the full sampler."""
    settings = model.settings
    shape = model.latent_shape(settings.frames, settings.height, settings.width)
    guidance = model.guidance(settings, model.encode_prompts([settings.negative_prompt]))
    videos = []
    for start in range(0, len(captions), batch):
        part = list(captions[start : start + batch])
        noise = draw_noise(shape, [derive_seed(seed, "quality", caption) for caption in part], model.device)
        conditions = model.encode_prompts(part)
        latents = sample(model, conditions, noise=noise, steps=settings.steps, guidance=guidance)
        videos.append(model.decode(latents).cpu())
    return torch.cat(videos)


def means(truth: Truth, video: Tensor, captions: Sequence[str]) -> dict[str, float]:
    """What the trackers say of `video` ``[B, F, 3, H, W]``, on average."""
    found = truth(video, captions)
    return {key: round(float(np.mean(found[key])), 4) for key in KEYS}
