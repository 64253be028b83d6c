"""A model family against diffusers' own pipeline: the same noise, prompts and steps must give the same video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpo_kit import folders, models
from vpo_kit.inputs import Inputs
from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.loading import pipeline_class
from vpo_kit.models.settings import Size
from vpo_kit.sampler import Guidance, sample
from vpo_kit.testing.calling import Call, call_pipeline, check_call
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

    def conditions(self, items: Sequence[str | Inputs] = PROMPTS, model: VideoModel | None = None) -> Conditions:
        """What the networks see of `items` at the call's size, of a prompt alone with the model's example pictures;
        `model` is another one of the family.
        """
        call = self.call
        return (model or self.model).conditions_at(items, frames=call.frames, height=call.height, width=call.width)

    @torch.no_grad()
    def ours(self, noise: Tensor, scale: float, items: Sequence[str | Inputs] = PROMPTS) -> Tensor:
        """Our video ``[B, F, 3, H, W]`` from `noise` ``[B, C, T, h, w]`` at the guidance `scale`."""
        guidance = Guidance(scale, self.model.encode_prompts([NEGATIVE]))
        latents = sample(self.model, self.conditions(items), noise=noise, steps=self.call.steps, guidance=guidance)
        return self.model.decode(latents)

    def theirs(self, noise: Tensor, scale: float, items: Sequence[str | Inputs] = PROMPTS) -> Tensor:
        """The pipeline's own videos from the same, one after the other: not all take a batch."""
        found, model = self.conditions(items), self.model
        noise = found.held(found.begun(noise))
        whole = [model.example(item) if isinstance(item, str) else item for item in items]
        return torch.cat(
            [
                call_pipeline(model, self.plain, row[None], self.call, item=item, negative=NEGATIVE, scale=scale)
                for row, item in zip(noise, whole, strict=True)
            ]
        )


def open_case(
    name: str,
    *,
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    steps: int = 3,
    more: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Case:
    """Load the pipeline of a folder, hub id or embedded name twice, once by `vpo` and once by diffusers alone.

    A size that is not given is small: three latent frames (four frames where each is coded by itself), and sides of two
    and three times what they must be multiples of, or the only ones that the network takes. `more` are further
    arguments of the pipeline's call, `attributes` are set on both pipelines. Raises `ModelError`, or `ConfigError` for
    a size that does not fit and for an argument that the call does not have.
    """
    model = models.load(name)
    kind = pipeline_class(type(model.pipeline).__name__)
    time, tall, wide = model.multiples
    few = 1 + 2 * time if model.causal else max(4, 2 * time)
    tall, wide = model.only_size or (2 * tall, 3 * wide)
    call = Call(frames=frames or few, height=height or tall, width=width or wide, steps=steps, more=dict(more or {}))
    check_call(kind, call)
    model.check_size(Size(call.frames, call.height, call.width))
    source = Path(folders.resolve(name))
    plain = kind.from_pretrained(source).to(model.device)
    plain.set_progress_bar_config(disable=True)
    for key, value in (attributes or {}).items():
        setattr(model.pipeline, key, value)
        setattr(plain, key, value)
    return Case(source, model, plain, call)


def make(family: Family, folder: Path) -> Case:
    """Build the family's tiny pipeline with random weights (seed 0), save it to `folder`, and open it."""
    torch.manual_seed(0)
    family.build().save_pretrained(folder, safe_serialization=True)
    side = family.size
    return open_case(str(folder), frames=family.frames, height=side, width=side, attributes=family.attributes)
