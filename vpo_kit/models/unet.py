"""What the UNet families share: CLIP text, and an image autoencoder that codes every frame by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions


class UNetModel(VideoModel):
    """Latent frame k is pixel frame k, and is decoded without its neighbours."""

    network_name: ClassVar[str] = "unet"
    causal: ClassVar[bool] = False
    decode_context: ClassVar[int] = 0

    @property
    def temporal_stride(self) -> int:
        return 1

    @property
    def spatial_stride(self) -> int:
        return int(self.pipeline.vae_scale_factor)

    @property
    def multiples(self) -> tuple[int, int, int]:
        return 1, self.spatial_stride, self.spatial_stride

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        embeds, _ = self.pipeline.encode_prompt(list(prompts), self.device, 1, False)
        return Conditions({"embeds": embeds.to(self.dtype)})

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        vae = self.pipeline.vae
        pixels = (video.flatten(0, 1).to(vae.device) * 2 - 1).to(vae.dtype)  # scaled before it is rounded
        latents: Tensor = vae.encode(pixels).latent_dist.mode().float()
        return self.normalise(latents.reshape(*video.shape[:2], *latents.shape[1:]).transpose(1, 2))

    def decode_clip(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        z = self.denormalise(latents.to(vae.device, vae.dtype)).transpose(1, 2)
        images: Tensor = vae.decode(z.flatten(0, 1), return_dict=False)[0]
        return (images.float() / 2 + 0.5).reshape(*z.shape[:2], *images.shape[1:])
