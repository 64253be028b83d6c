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
from vpo_kit.video import straight_through_clamp


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
    causal: ClassVar[bool] = True
    """Whether latent frame 0 is pixel frame 0 alone, as in causal video autoencoders."""
    decode_context: ClassVar[int] = 2
    """Latent frames before a wanted one that are decoded with it: the left context of `decode` with `frames`."""

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

    @property
    @abstractmethod
    def temporal_stride(self) -> int:
        """Pixel frames for each latent frame."""

    def frame_map(self, frames: int) -> list[tuple[int, int]]:
        """The half-open range of pixel frames that each latent frame of a clip of `frames` frames stands for."""
        stride, lead = self.temporal_stride, 1 if self.causal else self.temporal_stride
        starts = [0, *range(lead, frames, stride)]
        return list(zip(starts, [*starts[1:], frames], strict=True))

    def new_scheduler(self, steps: int, shape: Sequence[int]) -> Any:
        """A fresh copy of the pipeline's scheduler (sampling changes its state) with `steps` steps set for latents of
        `shape` ``(C, T, h, w)``, as the pipeline's own ``__call__`` does it: some families shift the chain by size.
        """
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(steps)
        return scheduler

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
    def decode_clip(self, latents: Tensor) -> Tensor:
        """Normalised latents to video ``[B, F, 3, H, W]``, not clamped; the gradient passes where there is one."""

    def decode(self, latents: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        """Video ``[B, F, 3, H, W]`` in [0, 1], clamped with a straight-through gradient.

        With `frames` (pixel frames, ascending) only those, ``[B, len(frames), ...]``: each run of neighbouring latent
        frames that they need is decoded with `decode_context` latent frames before it. What a causal autoencoder
        remembers from further back is cut off.
        """
        if frames is None:
            return straight_through_clamp(self.decode_clip(latents))
        stride, lead = self.temporal_stride, 1 if self.causal else self.temporal_stride
        needed = sorted({0 if p < lead else 1 + (p - lead) // stride for p in frames})
        found: dict[int, Tensor] = {}
        for low, high in _runs(needed, self.decode_context):
            part = self.decode_clip(latents[:, :, low:high])
            found |= {p: part[:, p - low * stride] for p in frames if 0 <= p - low * stride < part.shape[1]}
        return straight_through_clamp(torch.stack([found[p] for p in frames], 1))

    @abstractmethod
    def predict(self, latents: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """The network's output at ``x_t``, float32 ``[B, C, T, h, w]``; `t` ``[B]`` in the network's own units."""


def _runs(latent_frames: Sequence[int], context: int) -> list[tuple[int, int]]:
    """Half-open runs that hold the latent frames, each with its left context; runs that meet are one."""
    runs: list[tuple[int, int]] = []
    for frame in latent_frames:
        low = max(0, frame - context)
        if runs and low <= runs[-1][1]:
            runs[-1] = (runs[-1][0], frame + 1)
        else:
            runs.append((low, frame + 1))
    return runs
