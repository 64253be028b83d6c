"""LTX-Video: `LTXPipeline`, `LTXImageToVideoPipeline`, and `LTXConditionPipeline`, which 0.9.5 and later name, from
text alone or from an image.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule
from torch import Tensor, nn

from vpo_kit.inputs import Inputs
from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.settings import Settings
from vpo_kit.times import Times


class LTXModel(VideoModel):
    """Flow matching with a shift that grows with the video's size; the latents are packed into a row of tokens.

    The autoencoder's decoder is not causal: `decode` with `frames` gives it two latent frames on either side. Where
    the decoder takes a time (LTX 0.9.1 and later) it is 0, the pipeline's default.
    """

    published: ClassVar[str] = "LTX to 0.9.1"
    defaults: ClassVar[Settings] = Settings(frames=161, height=512, width=704, fps=25, steps=50, guidance=3.0)
    times: ClassVar[Times] = Times(name="logit_normal", shift="sampler")
    times_source: ClassVar[str] = "logit-normal, shifted by the number of tokens, as LTX-Video-Trainer does it"
    text_tokens: ClassVar[int] = 128
    """The pipeline's default; a tokenizer made for shorter texts says so."""

    def __init__(self, pipeline: Any, settings: Settings | None, source: str) -> None:
        super().__init__(pipeline, settings, source)
        if any(pipeline.vae.config.get("decoder_inject_noise", ())):
            _with_fixed_noise(pipeline.vae.decoder)

    @property
    def temporal_stride(self) -> int:
        return int(self.pipeline.vae_temporal_compression_ratio)

    @property
    def spatial_stride(self) -> int:
        return int(self.pipeline.vae_spatial_compression_ratio)

    def decode_window(self, frame: int) -> tuple[int, int]:
        low, high = super().decode_window(frame)
        return low, high + self.decode_context

    def new_scheduler(self, steps: int, shape: Sequence[int]) -> Any:
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=self._mu(shape))
        return scheduler

    def shift(self, shape: Sequence[int]) -> float:
        return math.exp(self._mu(shape)) if self.pipeline.scheduler.config.get("use_dynamic_shifting") else 1.0

    def _mu(self, shape: Sequence[int]) -> float:
        config, (_, frames, height, width) = self.pipeline.scheduler.config, shape
        mu: float = calculate_shift(
            frames * height * width,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        return mu

    @property
    def most_tokens(self) -> int:
        return min(self.text_tokens, int(self.pipeline.tokenizer.model_max_length))

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        embeds, mask, _, _ = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self.most_tokens,
            device=self.device,
        )
        return Conditions({"embeds": embeds.to(self.dtype), "mask": mask})

    def encode_images(self, items: Sequence[Inputs]) -> dict[str, Tensor]:
        if items[0].image is None:
            return {}
        return {"given": self.encode(self.pictures(items)[:, None])}

    def statistics(self) -> tuple[Any, Any]:
        vae = self.pipeline.vae
        return vae.latents_mean, vae.latents_std / vae.config.scaling_factor

    def decode_clip(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        z = self.denormalise(latents.to(vae.device, vae.dtype))
        time = torch.zeros(len(z), device=z.device, dtype=z.dtype) if vae.config.timestep_conditioning else None
        video: Tensor = vae.decode(z, time, return_dict=False)[0]
        return (video.float() / 2 + 0.5).transpose(1, 2)

    def pack(self, latents: Tensor) -> Tensor:
        return latents.flatten(2).transpose(1, 2)

    def predict(self, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        network, size, time = self.network, latents.shape[2:], time.to(latents.device)
        if conditions.num_given:
            time = conditions.token_times(time, size[0], size[1] * size[2])
        output: Tensor = network(
            hidden_states=self.pack(conditions.held(latents)).to(self.dtype),
            encoder_hidden_states=conditions.tensors["embeds"],
            timestep=time,
            encoder_attention_mask=conditions.tensors["mask"],
            return_dict=False,
            **self._places(latents),
        )[0]
        return conditions.held(output.float().transpose(1, 2).reshape(len(latents), -1, *size), 0.0)

    def _places(self, latents: Tensor) -> dict[str, Any]:
        """Where the tokens are in time and space, as the network takes it."""
        frames, height, width = latents.shape[2:]
        stride = self.spatial_stride
        scale = (self.temporal_stride / self.settings.fps, stride, stride)
        return {"num_frames": frames, "height": height, "width": width, "rope_interpolation_scale": scale}


class LTXImageModel(LTXModel):
    """`LTXImageToVideoPipeline`: the first latent frame is given. The pipeline draws it from the autoencoder's
    posterior; here it is its mode, as everywhere.
    """

    published: ClassVar[str] = "LTX to 0.9.1"
    inputs: ClassVar[Sequence[str]] = ("text", "image")


class LTXConditionModel(LTXModel):
    """The pipeline of LTX 0.9.5 and later: a chain that is linear at first and then quadratic, and tokens whose places
    are those of their pixels, the first frame standing for itself alone. Of what can be given to it, an image at the
    start is supported; it is given as it is, without the noise that the pipeline adds by default
    (`image_cond_noise_scale`).
    """

    inputs: ClassVar[Sequence[str]] = ("text", "image")
    image_optional: ClassVar[bool] = True
    published: ClassVar[str] = "LTX 0.9.5 on"
    text_tokens: ClassVar[int] = 256

    def new_scheduler(self, steps: int, shape: Sequence[int]) -> Any:
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(sigmas=linear_quadratic_schedule(steps).tolist())
        return scheduler

    def shift(self, shape: Sequence[int]) -> float:
        """That of training: the chain itself is not shifted (LTX-Video-Trainer, shifted logit-normal times)."""
        return math.exp(calculate_shift(math.prod(shape[1:]), 1024, 4096, 0.95, 2.05))

    def _places(self, latents: Tensor) -> dict[str, Any]:
        pipeline = self.pipeline
        ids = pipeline._prepare_video_ids(len(latents), *latents.shape[2:], device=latents.device)
        places = pipeline._scale_video_ids(ids, self.spatial_stride, self.temporal_stride).float()
        places[:, 0] /= self.settings.fps
        return {"video_coords": places}


def _with_fixed_noise(decoder: nn.Module) -> None:
    """Let a decoder that adds noise (0.9.1's) add the same in each call: diffusers draws it from the global generator,
    so no video is decoded twice alike, and a pass for the gradient would be that of another picture.
    """
    plain: Callable[..., Any] = decoder.forward

    @wraps(plain)
    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        device = hidden_states.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            return plain(hidden_states, *args, **kwargs)

    decoder.forward = forward
