"""A model family against diffusers' own pipeline: the same noise, prompts and steps must give the same video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpo_kit import models
from vpo_kit.models.base import VideoModel
from vpo_kit.sampler import Guidance, sample
from vpo_kit.testing.families import Family

PROMPTS = ("a red circle moving right slowly on a navy background", "a blue square circling quickly")
NEGATIVE = "blurry"
STEPS = 3


@dataclass(frozen=True)
class Case:
    """One family: the folder of its tiny pipeline, the model as the production path loads it, and the pipeline."""

    family: Family
    folder: Path
    model: VideoModel
    plain: Any

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of its latents, ``C T h w``."""
        return self.model.latent_shape(self.family.frames, self.family.size, self.family.size)

    @torch.no_grad()
    def ours(self, noise: Tensor, scale: float, prompts: Sequence[str] = PROMPTS) -> Tensor:
        """Our video ``[B, F, 3, H, W]`` from `noise` ``[B, C, T, h, w]`` at the guidance `scale`."""
        guidance = Guidance(scale, self.model.encode_prompts([NEGATIVE]))
        conditions = self.model.encode_prompts(list(prompts))
        return self.model.decode(sample(self.model, conditions, noise=noise, steps=STEPS, guidance=guidance))

    def theirs(self, noise: Tensor, scale: float, prompts: Sequence[str] = PROMPTS) -> Tensor:
        """The pipeline's own video from the same."""
        return self.family.run(
            self.plain, noise, prompts=list(prompts), negative=NEGATIVE, scale=scale, steps=STEPS
        ).float()

    def difference(self, noise: Tensor, scale: float) -> float:
        """The largest of all pixels in [0, 1]; in float32 a right adapter stays below 1e-4."""
        return float((self.ours(noise, scale) - self.theirs(noise, scale)).abs().max())


def make(family: Family, folder: Path) -> Case:
    """Build the family's tiny pipeline with random weights (seed 0), save it to `folder`, and load it twice."""
    torch.manual_seed(0)
    pipeline = family.build()
    pipeline.save_pretrained(folder, safe_serialization=True)
    plain = type(pipeline).from_pretrained(folder)
    plain.set_progress_bar_config(disable=True)
    model = models.load(str(folder))
    for key, value in family.attributes.items():
        setattr(model.pipeline, key, value)
        setattr(plain, key, value)
    return Case(family, folder, model, plain)
