"""CogVideoX: `CogVideoXPipeline` and `CogVideoXImageToVideoPipeline`; v-prediction, zero terminal SNR.

CogVideoX 1.0 is 2B (DDIM) and 5B (DPM, rotary embeddings). CogVideoX 1.5 takes latent frames two by two: in front of a
video's odd number of them stands the first one again, as its authors train it; it is decoded to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import CogVideoXDPMScheduler
from torch import Tensor

from vpo_kit.errors import ModelError
from vpo_kit.inputs import Inputs
from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.settings import Settings
from vpo_kit.times import Times


class _DPMSteps:
    """`CogVideoXDPMScheduler` under the calling convention of all others: it keeps the history that its steps need.

    Its steps add noise, drawn in the pipeline's own layout ``[B, T, C, h, w]``.
    """

    def __init__(self, scheduler: Any) -> None:
        self.timesteps: Tensor = scheduler.timesteps
        self._scheduler = scheduler
        self._clean: Tensor | None = None
        self._last: Tensor | None = None

    def step(
        self, prediction: Tensor, t: Tensor, latents: Tensor, *, generator: list[torch.Generator], return_dict: bool
    ) -> tuple[Tensor]:
        x_t, self._clean = self._scheduler.step(
            prediction.transpose(1, 2), self._clean, t, self._last, latents.transpose(1, 2), generator=generator
        )
        self._last = t
        return (x_t.transpose(1, 2),)


COGVIDEOX_1_5 = Settings(frames=81, height=768, width=1360, fps=16, steps=50, guidance=6.0)


class CogVideoXModel(VideoModel):
    """The network takes latents with frames before channels; frames come in ones and eights, as its autoencoder's
    chunks of two latent frames want it.
    """

    published: ClassVar[str] = "1.0, 1.5"
    defaults: ClassVar[Settings] = Settings(frames=49, height=480, width=720, fps=8, steps=50, guidance=6.0)
    times: ClassVar[Times] = Times(name="uniform", stratified=True)
    times_source: ClassVar[str] = "uniform, spread evenly over a batch (CogVideoX, arXiv 2408.06072, section 3.2)"

    def __init__(self, pipeline: Any, settings: Settings | None, source: str) -> None:
        together = pipeline.transformer.config.patch_size_t
        if together not in (None, 2):
            raise ModelError(
                f"{source}: its network takes {together} latent frames together: CogVideoX 1.0 takes one, 1.5 two"
            )
        self.padding = 0 if together is None else 1  # the number of a video's latent frames is odd
        super().__init__(pipeline, settings or (COGVIDEOX_1_5 if together else None), source)

    @property
    def multiples(self) -> tuple[int, int, int]:
        time, tall, wide = super().multiples
        return time * 2, tall, wide

    @property
    def largest_size(self) -> tuple[int, int] | None:
        config, stride = self.network.config, self.spatial_stride
        ends = config.patch_size_t is not None  # 1.0's are stretched over any size
        return (config.sample_height * stride, config.sample_width * stride) if ends else None

    def decode_window(self, frame: int) -> tuple[int, int]:
        """Whole chunks: the autoencoder decodes latent frames 0 to 2 together, then two and two."""
        chunk = max(0, frame - 1) // 2
        return max(0, 2 * chunk - 2), 2 * chunk + 3

    def new_scheduler(self, steps: int, shape: Sequence[int]) -> Any:
        scheduler = super().new_scheduler(steps, shape)
        return _DPMSteps(scheduler) if isinstance(scheduler, CogVideoXDPMScheduler) else scheduler

    @property
    def most_tokens(self) -> int:
        return int(self.network.config.max_text_seq_length)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        embeds, _ = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self.most_tokens,
            device=self.device,
        )
        return Conditions({"embeds": embeds.to(self.dtype)})

    def pack(self, latents: Tensor) -> Tensor:
        return latents.transpose(1, 2)

    def predict(self, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        network, seen = self.network, latents
        if "condition" in conditions.tensors:
            seen = torch.cat([latents, conditions.tensors["condition"].to(latents)], 1)
        output: Tensor = network(
            hidden_states=self.pack(seen).to(self.dtype),
            encoder_hidden_states=conditions.tensors["embeds"],
            timestep=time.to(latents.device),
            image_rotary_emb=self._rotary(latents),
            ofs=self._offset(latents),
            return_dict=False,
        )[0]
        return output.float().transpose(1, 2)

    def _offset(self, latents: Tensor) -> Tensor | None:
        """What CogVideoX 1.5 I2V is told, always the same, as the pipeline tells it."""
        return None if self.network.config.ofs_embed_dim is None else latents.new_full((1,), 2.0)

    def _rotary(self, latents: Tensor) -> tuple[Tensor, Tensor] | None:
        if not self.network.config.use_rotary_positional_embeddings:
            return None
        frames, height, width = latents.shape[2:]
        stride = self.spatial_stride
        # no public function makes these: they depend on the pipeline's crop to the size of its training
        rotary: tuple[Tensor, Tensor] = self.pipeline._prepare_rotary_positional_embeddings(
            height * stride, width * stride, frames, latents.device
        )
        return rotary


class CogVideoXImageModel(CogVideoXModel):
    """`CogVideoXImageToVideoPipeline`: the picture's latent lies beside the first noisy one, and zeros beside the rest.
    The pipeline draws it from the autoencoder's posterior; here it is its mode, as everywhere.
    """

    published: ClassVar[str] = "1.0, 1.5"
    inputs: ClassVar[Sequence[str]] = ("text", "image")

    @property
    def only_size(self) -> tuple[int, int] | None:
        config, stride = self.network.config, self.spatial_stride
        learned = config.use_learned_positional_embeddings
        return (config.sample_height * stride, config.sample_width * stride) if learned else None

    @torch.no_grad()
    def encode_images(self, items: Sequence[Inputs]) -> dict[str, Tensor]:
        vae, settings = self.pipeline.vae, self.settings
        first = self.encode(self.pictures(items)[:, None])[:, :, :1]
        if vae.config.invert_scale_latents:  # how its authors trained it
            first = self.denormalise(self.denormalise(first))
        empty = self.latent_shape(settings.frames, settings.height, settings.width)[1] - 1
        return {"condition": torch.cat([first, first.new_zeros(*first.shape[:2], empty, *first.shape[3:])], 2)}
