"""SANA-Video, text to video: diffusers' `SanaVideoPipeline`, with the autoencoder of Wan 2.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.settings import Settings


class SanaVideoModel(VideoModel):
    """Flow matching, text with a mask. The pipeline's instruction to its text encoder is left out, for training and
    sampling alike; who wants it writes it into the prompts.
    """

    published: ClassVar[str] = "SANA-Video"
    defaults: ClassVar[Settings] = Settings(frames=81, height=480, width=832, fps=16, steps=50, guidance=6.0)

    @property
    def multiples(self) -> tuple[int, int, int]:
        return self.temporal_stride, 32, 32  # as the pipeline's call wants them

    @property
    def latent_channels(self) -> int:
        return int(self.pipeline.vae.config.z_dim)

    def statistics(self) -> tuple[Any, Any]:
        return self.pipeline.vae.config.latents_mean, self.pipeline.vae.config.latents_std

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        embeds, mask, _, _ = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=min(300, self.pipeline.tokenizer.model_max_length),
            device=self.device,
        )
        return Conditions({"embeds": embeds.to(self.dtype), "mask": mask})

    def predict(self, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        output: Tensor = self.network(
            latents.to(self.dtype),
            encoder_hidden_states=conditions.tensors["embeds"],
            encoder_attention_mask=conditions.tensors["mask"],
            timestep=time.to(latents.device),
            return_dict=False,
        )[0]
        return output.float()
