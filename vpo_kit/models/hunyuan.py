"""HunyuanVideo 1.0: `HunyuanVideoPipeline` and `HunyuanVideoImageToVideoPipeline`, guidance inside the network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vpo_kit.errors import ModelError
from vpo_kit.inputs import Inputs, as_image
from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.settings import Settings
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

    @property
    def most_tokens(self) -> int:
        """The default of the pipeline, behind its template."""
        return 256

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        return self._encoded(self.pipeline.encode_prompt(list(prompts), device=self.device))

    def _encoded(self, parts: Sequence[Tensor]) -> Conditions:
        """What the pipeline's ``encode_prompt`` gives."""
        named = zip(("embeds", "pooled", "mask"), parts, strict=True)
        tensors = {key: value.to(self.dtype) for key, value in named}
        if self.network.config.guidance_embeds:
            tensors["guidance"] = torch.ones(len(parts[0]), device=self.device)
        return Conditions(tensors)

    def predict(self, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        network, given = self.network, conditions.tensors
        output: Tensor = network(
            hidden_states=conditions.held(latents).to(self.dtype),
            timestep=time.to(latents),
            encoder_hidden_states=given["embeds"],
            encoder_attention_mask=given["mask"],
            pooled_projections=given["pooled"],
            guidance=given["guidance"].to(self.dtype) * 1000 if "guidance" in given else None,
            return_dict=False,
        )[0]
        return conditions.held(output.float(), 0.0)


class HunyuanImageModel(HunyuanModel):
    """The picture is the first latent frame, at time 0 (`image_condition_type` ``token_replace``), a thousandth of it
    is mixed into the noise that a chain begins from, and Llava reads the prompt with the picture before it.

    A negative prompt is read with a black picture, as in the pipeline, by as many tokens as a positive one.
    """

    inputs: ClassVar[Sequence[str]] = ("text", "image")
    text_sees_pictures: ClassVar[bool] = True

    def __init__(self, pipeline: Any, settings: Settings | None, source: str) -> None:
        kind = pipeline.transformer.config.image_condition_type
        if kind != "token_replace":
            raise ModelError(
                f"{source}: its network takes the picture by {kind}, of which the pipeline drops the first frames: "
                "HunyuanVideo-I2V by token_replace is supported"
            )
        super().__init__(pipeline, settings, source)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        black = torch.zeros(3, self.settings.height, self.settings.width)
        return self._read(prompts, [black] * len(prompts))

    def encode_texts(self, items: Sequence[Inputs]) -> Conditions:
        return self._read([item.prompt for item in items], list(self.pictures(items)))

    @torch.no_grad()
    def _read(self, prompts: Sequence[str], pictures: Sequence[Tensor]) -> Conditions:
        parts = [
            self.pipeline.encode_prompt(as_image(one), [prompt], device=self.device, image_embed_interleave=4)
            for prompt, one in zip(prompts, pictures, strict=True)
        ]
        return self._encoded([torch.cat(rows) for rows in zip(*parts, strict=True)])

    @torch.no_grad()
    def encode_images(self, items: Sequence[Inputs]) -> dict[str, Tensor]:
        given = self.encode(self.pictures(items)[:, None])
        return {"given": given, "noise": torch.full((len(items),), 0.999, device=given.device)}
