"""A model family against diffusers' own pipeline: the same noise, prompts and steps must give the same video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from vpo_kit import models
from vpo_kit.models.base import VideoModel
from vpo_kit.sampler import Guidance, sample
from vpo_kit.testing.calling import Call, call_pipeline
from vpo_kit.testing.families import Family

PROMPTS = ("a red circle moving right slowly on a navy background", "a blue square circling quickly")
NEGATIVE = "blurry"


@dataclass(frozen=True)
class Case:
    """A pipeline folder, the model as the production path loads it, the pipeline as diffusers does, and its call."""

    folder: Path
    model: VideoModel
    plain: Any
    call: Call

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of its latents, ``C T h w``."""
        return self.model.latent_shape(self.call.frames, self.call.height, self.call.width)

    @torch.no_grad()
    def ours(self, noise: Tensor, scale: float, prompts: Sequence[str] = PROMPTS) -> Tensor:
        """Our video ``[B, F, 3, H, W]`` from `noise` ``[B, C, T, h, w]`` at the guidance `scale`."""
        guidance = Guidance(scale, self.model.encode_prompts([NEGATIVE]))
        conditions = self.model.encode_prompts(list(prompts))
        latents = sample(self.model, conditions, noise=noise, steps=self.call.steps, guidance=guidance)
        return self.model.decode(latents)

    def theirs(self, noise: Tensor, scale: float, prompts: Sequence[str] = PROMPTS) -> Tensor:
        """The pipeline's own videos from the same, one after the other: not all take a batch."""
        return torch.cat(
            [
                call_pipeline(
                    self.model, self.plain, row[None], self.call, prompts=[prompt], negative=NEGATIVE, scale=scale
                )
                for row, prompt in zip(noise, prompts, strict=True)
            ]
        )

    def difference(self, noise: Tensor, scale: float) -> float:
        """The largest of all pixels in [0, 1]; in float32 a right adapter stays below 1e-4."""
        return float((self.ours(noise, scale) - self.theirs(noise, scale)).abs().max())


def open_case(folder: Path, call: Call, attributes: Mapping[str, Any] | None = None) -> Case:
    """Load the pipeline of `folder` twice; `attributes` are set on both. Raises `ModelError`."""
    model = models.load(str(folder))
    plain = diffusers.DiffusionPipeline.from_pretrained(folder).to(model.device)
    plain.set_progress_bar_config(disable=True)
    for key, value in (attributes or {}).items():
        setattr(model.pipeline, key, value)
        setattr(plain, key, value)
    return Case(folder, model, plain, call)


def make(family: Family, folder: Path) -> Case:
    """Build the family's tiny pipeline with random weights (seed 0), save it to `folder`, and open it."""
    torch.manual_seed(0)
    family.build().save_pretrained(folder, safe_serialization=True)
    call = Call(frames=family.frames, height=family.size, width=family.size)
    return open_case(folder, call, family.attributes)
