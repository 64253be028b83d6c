"""HunyuanVideo 1.0: `HunyuanVideoPipeline`, with guidance embedded in the network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vpo_kit.models.base import Settings, VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.times import Times


class HunyuanModel(VideoModel):
    """Llama and CLIP text, flow matching, a network distilled from guidance.

    The guidance scale is an input of the network (`guidance_embeds`): the sampler sets it, in one pass and without a
    negative prompt, as the pipeline's `guidance_scale`. A training pass sees scale 1. A network without that input
    gets classifier-free guidance, the pipeline's `true_cfg_scale`.
    """

    published: ClassVar[str] = "Hunyuan 1.0"
    defaults: ClassVar[Settings] = Settings(frames=129, height=720, width=1280, fps=24, steps=50, guidance=6.0)
    times: ClassVar[Times] = Times(name="logit_normal", shift="sampler")
    times_source: ClassVar[str] = "logit-normal, shifted as the sampler's chain, as musubi-tuner trains it"

    def new_scheduler(self, steps: int, shape: Sequence[int]) -> Any:
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1])
        return scheduler

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        embeds, pooled, mask = self.pipeline.encode_prompt(list(prompts), device=self.device)
        tensors = {key: v.to(self.dtype) for key, v in (("embeds", embeds), ("pooled", pooled), ("mask", mask))}
        if self.network.config.guidance_embeds:
            tensors["guidance"] = torch.ones(len(prompts), device=self.device)
        return Conditions(tensors)

    def predict(self, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        network, given = self.network, conditions.tensors
        output: Tensor = network(
            hidden_states=latents.to(self.dtype),
            timestep=time.to(latents),
            encoder_hidden_states=given["embeds"],
            encoder_attention_mask=given["mask"],
            pooled_projections=given["pooled"],
            guidance=given["guidance"].to(self.dtype) * 1000 if "guidance" in given else None,
            return_dict=False,
        )[0]
        return output.float()
