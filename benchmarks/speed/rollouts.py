"""Videos a second: our sampler over a batch of prompts, against the diffusers pipeline called prompt by prompt.

Both encode their prompts anew, start from the same noise and end with decoded video; the videos must be the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.speed import jobs
from benchmarks.speed.timing import Row, in_turns, ratio, seconds
from vpo_kit import models
from vpo_kit.models.encoding import PromptCache
from vpo_kit.sampler import Guidance, draw_noise, sample

VIDEOS, SAME = 8, 1e-4


def rollouts() -> list[Row]:
    """Raises `RuntimeError` where the videos differ."""
    model = models.load("sprites")
    settings, prompts = model.settings, jobs.prompts(VIDEOS).prompts
    noise = draw_noise(model.latent_shape(settings.frames, settings.height, settings.width), range(VIDEOS))
    videos: dict[str, Tensor] = {}

    @torch.no_grad()
    def ours() -> None:
        encode = PromptCache(model)
        guidance = Guidance(settings.guidance, encode([""]))
        latents = sample(model, encode(prompts), noise=noise, steps=settings.steps, guidance=guidance)
        videos["ours"] = model.decode(latents)

    def pipeline(rows: Sequence[int]) -> Tensor:
        found: Tensor = model.pipeline(
            [prompts[i] for i in rows], num_frames=settings.frames, height=settings.height, width=settings.width,
            num_inference_steps=settings.steps, guidance_scale=settings.guidance, latents=noise[list(rows)],
            output_type="pt", max_sequence_length=model.pipeline.tokenizer.model_max_length,
        ).frames  # fmt: skip
        return found

    def one_by_one() -> None:
        videos["theirs"] = torch.cat([pipeline([i]) for i in range(VIDEOS)])

    clocks = in_turns({"ours": ours, "one by one": one_by_one, "at once": lambda: pipeline(range(VIDEOS))}, rounds=4)
    apart = float((videos["ours"] - videos["theirs"]).abs().max())
    if not apart < SAME:
        raise RuntimeError(f"rollouts: the videos differ by {apart}")
    mine, single, whole = (clocks[name] for name in ("ours", "one by one", "at once"))
    details = {
        "videos a second": round(VIDEOS / seconds(mine.processor), 2),
        "pipeline, videos a second": round(VIDEOS / seconds(single.processor), 2),
        "ratio on the wall": ratio(single.wall, mine.wall),
        "against the pipeline with all prompts in one call": ratio(whole.processor, mine.processor),
        "largest difference of a pixel": apart,
        "videos": VIDEOS,
    }
    found = ratio(single.processor, mine.processor)
    return [
        Row("rollouts, videos a second", "the pipeline, prompt by prompt", found, 1.5, at_most=False, details=details)
    ]
