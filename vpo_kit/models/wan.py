"""Wan 2.1: `WanPipeline` with one transformer (also the embedded model)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.models.base import Conditions, Settings, VideoModel


class WanModel(VideoModel):
    """Causal video autoencoder (latent frame 0 is pixel frame 0), T5 text, flow matching."""

    lora_targets: ClassVar[Sequence[str]] = ("to_q", "to_k", "to_v", "to_out.0")
    defaults: ClassVar[Settings] = Settings(frames=81, height=480, width=832, fps=16, steps=50, guidance=5.0)

    def __init__(self, pipeline: Any, settings: Settings | None, source: str) -> None:
        if pipeline.config.get("boundary_ratio") is not None or pipeline.config.get("expand_timesteps"):
            raise ModelError(f"{source}: Wan 2.2 pipelines are not supported, Wan 2.1 text-to-video is")
        super().__init__(pipeline, settings or self.defaults, source)
        config = pipeline.vae.config
        shape = (1, config.z_dim, 1, 1, 1)
        self._mean = torch.tensor(config.latents_mean).view(shape)
        self._std = torch.tensor(config.latents_std).view(shape)
        # the pipeline's default; a tokenizer made for shorter texts says so
        self._num_tokens = min(512, pipeline.tokenizer.model_max_length)

    @property
    def network(self) -> Any:
        return self.pipeline.transformer

    @property
    def temporal_stride(self) -> int:
        return int(self.pipeline.vae.config.scale_factor_temporal)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        config = self.pipeline.vae.config
        time, space = config.scale_factor_temporal, config.scale_factor_spatial
        _, patch_h, patch_w = self.network.config.patch_size
        right = (
            max(1, round((frames - 1) / time) * time + 1),
            max(1, round(height / (space * patch_h))) * space * patch_h,
            max(1, round(width / (space * patch_w))) * space * patch_w,
        )
        if right != (frames, height, width):
            raise ConfigError(
                f"{frames} frames of {width} x {height} do not fit the autoencoder of {self.source}: "
                f"the nearest that do are {right[0]} frames of {right[2]} x {right[1]}"
            )
        return config.z_dim, (frames - 1) // time + 1, height // space, width // space

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        embeds, _ = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self._num_tokens,
            device=self.device,
        )
        return Conditions({"embeds": embeds.to(self.network.dtype)})

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        vae = self.pipeline.vae
        pixels = video.transpose(1, 2).to(vae.device, vae.dtype) * 2 - 1
        latents: Tensor = vae.encode(pixels).latent_dist.mode().float()
        return (latents - self._mean.to(latents.device)) / self._std.to(latents.device)

    def decode_clip(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        z = latents.to(vae.device, vae.dtype)
        # divided by the inverse, as in the pipeline: the same to the last bit
        z = z / (1 / self._std).to(z) + self._mean.to(z)
        video: Tensor = vae.decode(z, return_dict=False)[0]
        return (video.float() / 2 + 0.5).transpose(1, 2)

    def predict(self, latents: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        network = self.network
        output: Tensor = network(
            hidden_states=latents.to(network.dtype),
            timestep=t.to(latents.device),
            encoder_hidden_states=conditions.tensors["embeds"],
            return_dict=False,
        )[0]
        return output.float()
