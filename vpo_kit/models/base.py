"""One interface over the diffusers families.

Legend: ``B`` videos, ``F`` pixel frames, ``C`` latent channels, ``T`` latent frames, ``h w`` latent size.
Video is float32 ``[B, F, 3, H, W]`` in [0, 1]; latents are float32 ``[B, C, T, h, w]``, normalised as the
pipeline's network sees them. Packing of any other kind stays inside the adapter.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vpo_kit import schedule as schedules


@dataclass(frozen=True)
class Conditions:
    """Encoded prompts: named tensors, each with the prompts along its first dimension."""

    tensors: dict[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: Tensor | list[int] | slice) -> Conditions:
        return Conditions({k: v[index] for k, v in self.tensors.items()})

    def repeat(self, count: int) -> Conditions:
        """Each prompt `count` times in a row."""
        return Conditions({k: v.repeat_interleave(count, 0) for k, v in self.tensors.items()})

    def expand(self, count: int) -> Conditions:
        """A single prompt as a batch of `count`, without a copy."""
        return Conditions({k: v.expand(count, *v.shape[1:]) for k, v in self.tensors.items()})

    @staticmethod
    def cat(parts: Sequence[Conditions]) -> Conditions:
        return Conditions({k: torch.cat([p.tensors[k] for p in parts]) for k in parts[0].tensors})


@dataclass(frozen=True)
class Settings:
    """How videos of a model are made: sizes in pixels and frames, `fps`, sampling steps and guidance scale."""

    frames: int
    height: int
    width: int
    fps: float
    steps: int
    guidance: float
    negative_prompt: str = ""

    def changed(self, **values: Any) -> Settings:
        """A copy with the values that are not None."""
        return replace(self, **{k: v for k, v in values.items() if v is not None})


class VideoModel(ABC):
    """A diffusers text-to-video pipeline behind one interface. An adapter is one small file."""

    lora_targets: ClassVar[Sequence[str]]
    """Names of the linear layers that carry the LoRA by default."""

    def __init__(self, pipeline: Any, settings: Settings, source: str) -> None:
        self.pipeline = pipeline
        self.settings = settings
        self.source = source
        self.schedule = schedules.from_scheduler(pipeline.scheduler)
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()

    @property
    @abstractmethod
    def network(self) -> Any:
        """The module that is trained: the transformer or UNet, with PEFT's adapter methods."""

    @property
    def device(self) -> torch.device:
        return torch.device(self.network.device)

    def new_scheduler(self) -> Any:
        """A fresh copy of the pipeline's scheduler: a sampling run changes its state."""
        return copy.deepcopy(self.pipeline.scheduler)

    @abstractmethod
    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """``(C, T, h, w)``. Raises `ConfigError`, naming the nearest right sizes, where the strides do not divide."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """Text to conditions, as the pipeline itself encodes it. No gradient."""

    @abstractmethod
    def encode(self, video: Tensor) -> Tensor:
        """Video ``[B, F, 3, H, W]`` to its normalised latent (the posterior's mode). No gradient."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents to video ``[B, F, 3, H, W]`` in [0, 1]; the gradient passes where there is one."""

    @abstractmethod
    def predict(self, latents: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """The network's output at ``x_t``, float32 ``[B, C, T, h, w]``; `t` ``[B]`` in the network's own units."""
