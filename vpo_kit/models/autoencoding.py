"""Videos to latents and back, as far as all families have it alike.

Legend: ``B`` videos, ``F`` pixel frames, ``C`` latent channels, ``T`` latent frames, ``h w`` latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vpo_kit.errors import ConfigError
from vpo_kit.video import straight_through_clamp


class Autoencoding:
    """The part of a model that knows its autoencoder: what is here fits a causal one with one scaling factor."""

    causal: ClassVar[bool] = True
    """Whether latent frame 0 is pixel frame 0 alone, as in causal video autoencoders."""
    decode_context: ClassVar[int] = 2
    """Latent frames before a wanted one that are decoded with it: the left context of `decode` with `frames`."""
    padding: int = 0
    """Latent frames in front of a video's own, copies of its first one, where a network takes several together: they
    are trained on and sampled as any, stand for the first pixel frame, and are not decoded."""
    pipeline: Any
    source: str
    preview: nn.Module | None = None
    """A small decoder of the model's folder: normalised latents to video, not clamped (`models/preview.py`)."""

    @property
    def temporal_stride(self) -> int:
        """Pixel frames for each latent frame."""
        return int(self.pipeline.vae_scale_factor_temporal)

    @property
    def spatial_stride(self) -> int:
        """Pixels for each latent pixel, in height and in width."""
        return int(self.pipeline.vae_scale_factor_spatial)

    def frame_map(self, frames: int) -> list[tuple[int, int]]:
        """The half-open range of pixel frames that each latent frame of a clip of `frames` frames stands for."""
        stride, lead = self.temporal_stride, 1 if self.causal else self.temporal_stride
        starts = [0, *range(lead, frames, stride)]
        own = list(zip(starts, [*starts[1:], frames], strict=True))
        return own[:1] * self.padding + own

    def statistics(self) -> tuple[Any, Any]:
        """Mean and standard deviation of the autoencoder's own latents: numbers, or one for each channel."""
        return 0.0, 1 / self.pipeline.vae.config.scaling_factor

    def normalise(self, latents: Tensor) -> Tensor:
        """The autoencoder's latents as the network sees them."""
        mean, std = (torch.as_tensor(value).view(1, -1, 1, 1, 1).to(latents) for value in self.statistics())
        return (latents - mean) / std

    def denormalise(self, latents: Tensor) -> Tensor:
        """The network's latents as the autoencoder decodes them: the inverse of `normalise`."""
        mean, std = (torch.as_tensor(value).view(1, -1, 1, 1, 1).to(latents) for value in self.statistics())
        return latents * std + mean

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Video ``[B, F, 3, H, W]`` to its normalised latent (the posterior's mode). No gradient."""
        vae = self.pipeline.vae
        pixels = (video.transpose(1, 2).to(vae.device) * 2 - 1).to(vae.dtype)  # scaled before it is rounded
        latents = self.normalise(vae.encode(pixels).latent_dist.mode().float())
        return torch.cat([latents[:, :, :1]] * self.padding + [latents], 2)

    def decode_clip(self, latents: Tensor) -> Tensor:
        """Normalised latents to video ``[B, F, 3, H, W]``, not clamped; the gradient passes where there is one."""
        vae = self.pipeline.vae
        video: Tensor = vae.decode(self.denormalise(latents.to(vae.device, vae.dtype)), return_dict=False)[0]
        return (video.float() / 2 + 0.5).transpose(1, 2)

    def decode_window(self, frame: int) -> tuple[int, int]:
        """The half-open range of latent frames that is decoded for latent frame `frame`."""
        return max(0, frame - self.decode_context), frame + 1

    def decode(self, latents: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        """Video ``[B, F, 3, H, W]`` in [0, 1], clamped with a straight-through gradient.

        With `frames` (pixel frames, ascending) only those, ``[B, len(frames), ...]``: each run of neighbouring latent
        frames that they need is decoded with the context of `decode_window`. What a causal autoencoder remembers from
        further back is cut off.
        """
        latents = latents[:, :, self.padding :]
        if frames is None:
            return straight_through_clamp(self.decode_clip(latents))
        parts = []
        for (low, high), run in self.frame_runs(frames):
            clip = self.decode_clip(latents[:, :, low:high])
            parts += [clip[:, p - low * self.temporal_stride] for p in run]
        return straight_through_clamp(torch.stack(parts, 1))

    def frame_runs(self, frames: Sequence[int]) -> list[tuple[tuple[int, int], list[int]]]:
        """The runs of latent frames that `decode` goes through for the pixel `frames`, ascending, one after the other:
        each a half-open range, with those of `frames` that come out of it.
        """
        stride, lead = self.temporal_stride, 1 if self.causal else self.temporal_stride
        places = {p: 0 if p < lead else 1 + (p - lead) // stride for p in frames}
        runs = _runs([self.decode_window(place) for place in sorted(set(places.values()))])
        return [((low, high), [p for p in frames if low <= places[p] < high]) for low, high in runs]

    @torch.no_grad()
    def look(self, latents: Tensor) -> Tensor:
        """Video ``[B, F, 3, H, W]`` in [0, 1] by the small decoder, for judges of many candidates. No gradient.

        Raises `ConfigError` where the model's folder has none.
        """
        if self.preview is None:
            raise ConfigError(f"{self.source} has no preview_decoder in its folder: decode with the autoencoder")
        video: Tensor = self.preview(latents.float())
        return video.clamp(0, 1)


def _runs(windows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The windows, ascending, with those that overlap made one; those that only meet cost no more apart."""
    runs: list[tuple[int, int]] = []
    for low, high in windows:
        if runs and low < runs[-1][1]:
            runs[-1] = (runs[-1][0], high)
        else:
            runs.append((low, high))
    return runs
