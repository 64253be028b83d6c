"""How good the embedded model is, by the trackers, against the clips it was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vpo_kit.models.base import VideoModel
from vpo_kit.sampler import derive_seed, draw_noise, sample
from vpo_kit.sprites import tracker, world

KEYS = ("colour", "direction", "shape", "speed_class", "background", "flawed", "speed")


def quality(model: VideoModel, seed: int, *, batch: int = 36, training_clips: int = 400) -> dict[str, Any]:
    """Trackers on one video for each held-out prompt, on training clips, and on those as the autoencoder gives them.

    The last shows how much of a false alarm is the autoencoder's: `clean_decoded` are clips without a flaw.
    """
    clips = list(world.training_clips(training_clips, seed=99))
    clean = [clip for clip in clips if not clip.flaws][:100]
    video = torch.stack([torch.from_numpy(clip.video) for clip in clean])
    with torch.no_grad():
        decoded = torch.cat([model.decode(model.encode(part)) for part in torch.split(video, batch)])
    held_out = world.scenes(held_out=True)
    made = _sample(model, held_out, seed, batch)
    return {
        "held_out": _means(made, held_out),
        "training_clips": _means(np.stack([c.video for c in clips]), [c.scene for c in clips]),
        "clean_decoded": _means(decoded.numpy(), [c.scene for c in clean]),
        "autoencoder_l1": float((decoded - video).abs().mean()),
        "seed": seed,
    }


@torch.no_grad()
def _sample(model: VideoModel, scenes: list[world.Scene], seed: int, batch: int) -> Any:
    settings = model.settings
    shape = model.latent_shape(settings.frames, settings.height, settings.width)
    guidance = model.guidance(settings, model.encode_prompts([settings.negative_prompt]))
    videos = []
    for start in range(0, len(scenes), batch):
        part = scenes[start : start + batch]
        noise = draw_noise(shape, [derive_seed(seed, "quality", s.caption) for s in part], model.device)
        conditions = model.encode_prompts([s.caption for s in part])
        latents = sample(model, conditions, noise=noise, steps=settings.steps, guidance=guidance)
        videos.append(model.decode(latents).cpu())
    return torch.cat(videos).numpy()


def _means(videos: Any, scenes: list[world.Scene]) -> dict[str, float]:
    rows = [tracker.judge(video, scene) for video, scene in zip(videos, scenes, strict=True)]
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in KEYS}
