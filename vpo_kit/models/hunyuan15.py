"""HunyuanVideo 1.5: `HunyuanVideo15Pipeline` and `HunyuanVideo15ImageToVideoPipeline`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.loaders import HunyuanVideoLoraLoaderMixin
from torch import Tensor

from vpo_kit.errors import ModelError
from vpo_kit.inputs import Inputs, as_image
from vpo_kit.models.base import VideoModel, add_methods
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.settings import Settings
from vpo_kit.times import Times


class Hunyuan15Model(VideoModel):
    """Qwen and ByT5 text, flow matching, classifier-free guidance in two passes. The pipeline's guider is not used; its
    scale is the default, which is 1, one pass, of a network that was distilled from guidance.

    Diffusers' pipeline class cannot load LoRA files; the adapter adds the loader of HunyuanVideo 1.0. In diffusers
    alone, ``pipe.transformer.load_lora_adapter`` reads the same file.
    """

    published: ClassVar[str] = "Hunyuan 1.5"
    defaults: ClassVar[Settings] = Settings(frames=121, height=480, width=848, fps=24, steps=50, guidance=6.0)
    times: ClassVar[Times] = Times(name="logit_normal", shift="sampler")
    times_source: ClassVar[str] = (
        "logit-normal, shifted as the sampler's chain: as musubi-tuner trains 1.0; nothing was found of 1.5"
    )

    def __init__(self, pipeline: Any, settings: Settings | None, source: str) -> None:
        if pipeline.transformer.config.use_meanflow:
            raise ModelError(
                f"{source}: its network takes the time of the next step too (use_meanflow), and a time of training has "
                "none: take a HunyuanVideo 1.5 that was not distilled to few steps"
            )
        own = replace(self.defaults, guidance=_scale(pipeline.guider))
        super().__init__(pipeline, settings or own, source)
        add_methods(pipeline, HunyuanVideoLoraLoaderMixin)
        pipeline.vae.enable_slicing()  # its attention mask fits one video at a time (diffusers 0.42)

    def new_scheduler(self, steps: int, shape: Sequence[int]) -> Any:
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1])
        return scheduler

    @property
    def most_tokens(self) -> int:
        return int(self.pipeline.tokenizer_max_length)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        embeds, mask, glyphs, glyph_mask = self.pipeline.encode_prompt(
            list(prompts), device=self.device, dtype=self.dtype, batch_size=len(prompts)
        )
        return Conditions({"embeds": embeds, "mask": mask, "glyphs": glyphs, "glyph_mask": glyph_mask})

    def predict(self, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        network, given = self.network, conditions.tensors
        x_t = latents.to(self.dtype)
        if "condition" in given:
            condition, image = given["condition"].to(x_t), given["pictures"].to(x_t)
        else:  # no first image, and nothing in its mask
            condition = x_t.new_zeros(len(x_t), network.config.in_channels - x_t.shape[1], *x_t.shape[2:])
            image = x_t.new_zeros(len(x_t), self.pipeline.vision_num_semantic_tokens, network.config.image_embed_dim)
        output: Tensor = network(
            hidden_states=torch.cat([x_t, condition], 1),
            image_embeds=image,
            timestep=time.to(x_t),
            encoder_hidden_states=given["embeds"],
            encoder_attention_mask=given["mask"],
            encoder_hidden_states_2=given["glyphs"],
            encoder_attention_mask_2=given["glyph_mask"],
            return_dict=False,
        )[0]
        return output.float()


class Hunyuan15ImageModel(Hunyuan15Model):
    """The picture's latent lies beside the first noisy one, under a mask that says so, and zeros beside the rest;
    SigLIP shows it to the network as well.
    """

    published: ClassVar[str] = "Hunyuan 1.5"
    inputs: ClassVar[Sequence[str]] = ("text", "image")

    @torch.no_grad()
    def encode_images(self, items: Sequence[Inputs]) -> dict[str, Tensor]:
        settings, pictures = self.settings, self.pictures(items)
        first = self.encode(pictures[:, None])
        frames = self.latent_shape(settings.frames, settings.height, settings.width)[1]
        there = torch.cat([first, torch.ones_like(first[:, :1])], 1)
        empty = there.new_zeros(*there.shape[:2], frames - 1, *there.shape[3:])
        seen = [self.pipeline.encode_image(as_image(one), 1, self.device, self.dtype) for one in pictures]
        return {"condition": torch.cat([there, empty], 2), "pictures": torch.cat(seen)}


def _scale(guider: Any) -> float:
    """The scale of a pipeline's guider, as the sampler counts it: 1 is no guidance."""
    config = guider.config
    if not config.get("enabled", True):
        return 1.0
    return float(config.guidance_scale) + bool(config.get("use_original_formulation"))  # there 0 is no guidance
