"""Mochi 1: `MochiPipeline`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from torch import Tensor

from vpo_kit.errors import ConfigError
from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.settings import Settings
from vpo_kit.times import Times


class MochiModel(VideoModel):
    """Flow matching in the network's own time, which runs from noise to data; 6x in time, 8x in space."""

    published: ClassVar[str] = "Mochi 1"
    defaults: ClassVar[Settings] = Settings(frames=163, height=480, width=848, fps=30, steps=64, guidance=4.5)
    times: ClassVar[Times] = Times(name="chain")
    times_source: ClassVar[str] = "the times that its sampler visits; nothing published was found, so this is ours"

    @property
    def temporal_stride(self) -> int:
        return int(self.pipeline.vae_temporal_scale_factor)

    @property
    def spatial_stride(self) -> int:
        return int(self.pipeline.vae_spatial_scale_factor)

    def new_scheduler(self, steps: int, shape: Sequence[int]) -> Any:
        if steps < 2:
            raise ConfigError(f"{self.source}: Mochi's chain has a linear and a quadratic part: at least 2 steps")
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(sigmas=np.array(linear_quadratic_schedule(steps, 0.025)))  # the pipeline's threshold
        return scheduler

    @property
    def most_tokens(self) -> int:
        return min(256, int(self.pipeline.tokenizer.model_max_length))

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        # one by one: the pipeline clears a whole batch whose last prompt is empty
        return Conditions.cat([self._encode(prompt) for prompt in prompts])

    def _encode(self, prompt: str) -> Conditions:
        embeds, mask, _, _ = self.pipeline.encode_prompt(
            [prompt],
            do_classifier_free_guidance=False,
            max_sequence_length=self.most_tokens,
            device=self.device,
        )
        return Conditions({"embeds": embeds.to(self.dtype), "mask": mask})

    def statistics(self) -> tuple[Any, Any]:
        config = self.pipeline.vae.config
        if config.latents_mean is None or config.latents_std is None:
            return super().statistics()
        return torch.tensor(config.latents_mean), torch.tensor(config.latents_std) / config.scaling_factor

    def predict(self, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        network = self.network
        output: Tensor = network(
            hidden_states=latents.to(self.dtype),
            encoder_hidden_states=conditions.tensors["embeds"],
            timestep=time.to(latents),
            encoder_attention_mask=conditions.tensors["mask"],
            return_dict=False,
        )[0]
        return output.float()
