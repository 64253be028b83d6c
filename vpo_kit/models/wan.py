"""Wan: `WanPipeline` and `WanImageToVideoPipeline`. Wan 2.1 (also the embedded model), Wan 2.2 TI2V-5B and A14B;
SkyReels-V2.

Wan 2.2 A14B has two experts: `transformer` for times of at least `boundary_ratio` (of all training steps),
`transformer_2` for the times below; its authors call them the high-noise and the low-noise expert. TI2V-5B takes one
time for each token (`expand_timesteps`), which is 0 in a first frame that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.overrides import TorchFunctionMode

from vpo_kit.errors import DataError
from vpo_kit.inputs import Inputs, as_image
from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.settings import Settings
from vpo_kit.processes import Processes
from vpo_kit.times import Times

WAN_2_1 = Settings(frames=81, height=480, width=832, fps=16, steps=50, guidance=5.0)
TI2V_5B = Settings(frames=121, height=704, width=1280, fps=24, steps=50, guidance=5.0)
A14B = Settings(frames=81, height=480, width=832, fps=16, steps=40, guidance={"high_noise": 4.0, "low_noise": 3.0})


def _defaults(pipeline: Any) -> Settings:
    if pipeline.config.get("expand_timesteps"):
        return TI2V_5B
    return WAN_2_1 if pipeline.config.get("boundary_ratio") is None else A14B


class WanModel(VideoModel):
    """Causal video autoencoder (latent frame 0 is pixel frame 0), T5 text, flow matching."""

    published: ClassVar[str] = "Wan 2.1, 2.2"
    may_have_experts: ClassVar[bool] = True
    times: ClassVar[Times] = Times(name="uniform", shift=5.0)
    times_source: ClassVar[str] = "uniform places in a chain of shift 5, as VideoX-Fun trains Wan 2.1 and 2.2"

    def __init__(self, pipeline: Any, settings: Settings | None, source: str) -> None:
        ratio = pipeline.config.get("boundary_ratio")
        self._boundary = None if ratio is None else ratio * pipeline.scheduler.config.num_train_timesteps
        super().__init__(pipeline, settings or _defaults(pipeline), source)
        # the pipeline's default; a tokenizer made for shorter texts says so
        self._num_tokens = min(512, int(pipeline.tokenizer.model_max_length))

    @property
    def most_tokens(self) -> int:
        return self._num_tokens

    @property
    def networks(self) -> dict[str, Any]:
        return {name: getattr(self.pipeline, name) for name in self.experts} or super().networks

    @property
    def experts(self) -> dict[str, str]:
        return {} if self._boundary is None else {"transformer": "high_noise", "transformer_2": "low_noise"}

    def belongs(self, time: Tensor, name: str) -> Tensor:
        if self._boundary is None:
            return super().belongs(time, name)
        early: Tensor = time >= self._boundary
        return early if name == "transformer" else ~early

    def lora_options(self, name: str) -> dict[str, Any]:
        return {"load_into_transformer_2": True} if name == "transformer_2" else {}

    @property
    def multiples(self) -> tuple[int, int, int]:
        _, tall, wide = self.pipeline.transformer.config.patch_size
        return self.temporal_stride, self.spatial_stride * tall, self.spatial_stride * wide

    @property
    def latent_channels(self) -> int:
        return int(self.pipeline.vae.config.z_dim)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        embeds, _ = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self._num_tokens,
            device=self.device,
        )
        return Conditions({"embeds": embeds.to(self.dtype)})

    def statistics(self) -> tuple[Any, Any]:
        return self.pipeline.vae.config.latents_mean, self.pipeline.vae.config.latents_std

    def denormalise(self, latents: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in self.statistics())
        # divided by the inverse, as in the pipeline: the same to the last bit
        return latents / (1 / std).to(latents) + mean.to(latents)

    def decode_clip(self, latents: Tensor) -> Tensor:
        with _PassingClamp() if latents.requires_grad else nullcontext():
            return super().decode_clip(latents)

    def predict(self, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        if self._boundary is None:
            return self._run(self.network, latents, time, conditions)
        output = torch.zeros_like(latents, dtype=torch.float32)
        for name, network in self.networks.items():
            rows = self.belongs(time, name)
            if isinstance(network, FSDPModule):
                if not Processes().lockstep(int(rows.any())):
                    continue
                if not rows.any():  # another process has such rows, and cannot make its pass alone
                    output = output + 0 * self._run(network, latents[:1], time[:1], conditions[:1]).sum()
            elif rows.all():
                return self._run(network, latents, time, conditions)
            if rows.any():
                output[rows] = self._run(network, latents[rows], time[rows], conditions[rows])
        return output

    def _run(self, network: Any, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        time, seen, more = time.to(latents.device), conditions.held(latents), dict[str, Any]()
        if self.pipeline.config.get("expand_timesteps"):
            _, patch_h, patch_w = network.config.patch_size
            _, _, frames, height, width = latents.shape
            time = conditions.token_times(time, frames, (height // patch_h) * (width // patch_w))
        if "condition" in conditions.tensors:
            seen = torch.cat([seen, conditions.tensors["condition"].to(seen)], 1)
        if "pictures" in conditions.tensors:
            more["encoder_hidden_states_image"] = conditions.tensors["pictures"].flatten(0, 1).to(self.dtype)
        output: Tensor = network(
            hidden_states=seen.to(self.dtype),
            timestep=time,
            encoder_hidden_states=conditions.tensors["embeds"],
            return_dict=False,
            **more,
        )[0]
        return conditions.held(output.float(), 0.0)


class WanImageModel(WanModel):
    """Wan from a picture. The 14B models see a video of which the first frame, and with a last picture the last one, is
    there and the rest is grey: its latents lie beside the noisy ones under a mask of which frames are there. Wan 2.1
    also sees the pictures through CLIP. TI2V-5B is given the first latent frame itself.
    """

    published: ClassVar[str] = "Wan 2.1, 2.2"
    inputs: ClassVar[Sequence[str]] = ("text", "image", "last")
    # with the layers that look at CLIP's pictures, where there are any: diffusers adds them to a file that has none
    lora_targets: ClassVar[Sequence[str]] = (*WanModel.lora_targets, "add_k_proj", "add_v_proj")

    @property
    def _num_seen(self) -> int:
        """How many pictures CLIP must be shown; 0 where any will do."""
        config = self.pipeline.transformer.config
        return 0 if config.image_dim is None else 1 if config.pos_embed_seq_len is None else 2

    @property
    def _takes_last(self) -> bool:
        return self._num_seen != 1 and not self.pipeline.config.expand_timesteps

    def example(self, prompt: str) -> Inputs:
        found = super().example(prompt)
        return found if self._takes_last else Inputs(prompt, found.image)

    def check_inputs(self, items: Iterable[Inputs]) -> None:
        listed = list(items)
        super().check_inputs(listed)
        for item in listed:
            last = item.last_image is not None
            if last and not self._takes_last:
                raise DataError(f"{self.source} takes no last_image, and {item.prompt!r} has one: leave it out")
            if not last and self._num_seen == 2:
                raise DataError(
                    f"{self.source} takes a first and a last picture, and {item.prompt!r} has no last_image: "
                    "give prompts in a csv or jsonl file with both; clips give their first frame alone"
                )

    @torch.no_grad()
    def encode_images(self, items: Sequence[Inputs]) -> dict[str, Tensor]:
        first, settings = self.pictures(items), self.settings
        if self.pipeline.config.expand_timesteps:
            return {"given": self.encode(first[:, None])}
        size = settings.height, settings.width
        video = torch.full((len(items), settings.frames, 3, *size), 0.5)
        there = torch.zeros(len(items), settings.frames)
        video[:, 0], there[:, 0] = first, 1
        for row, item in enumerate(items):
            if item.last_image is not None:
                video[row, -1], there[row, -1] = item.last_image.read(*size), 1
        latents = self.encode(video)
        stride = self.temporal_stride
        grouped = torch.cat([there[:, :1].repeat(1, stride), there[:, 1:]], 1).view(len(items), -1, stride)
        mask = grouped.transpose(1, 2)[..., None, None].expand(-1, -1, -1, *latents.shape[3:]).to(latents)
        found = {"condition": torch.cat([mask, latents], 1)}
        if self._num_seen:
            shown = [[video[row, 0], video[row, -1]][: self._num_seen] for row in range(len(items))]
            found["pictures"] = torch.stack([self._looked_at(pictures) for pictures in shown])
        return found

    def _looked_at(self, pictures: Sequence[Tensor]) -> Tensor:
        """What CLIP sees of one item's pictures, ``[n, tokens, d]``."""
        seen: Tensor = self.pipeline.encode_image([as_image(one) for one in pictures], self.device)
        return seen


class SkyReelsModel(WanModel):
    """SkyReels-V2 T2V: Wan's architecture in classes of its own; its diffusion-forcing pipelines are others."""

    published: ClassVar[str] = "SkyReels-V2"
    may_have_experts: ClassVar[bool] = False
    defaults: ClassVar[Settings] = Settings(frames=97, height=544, width=960, fps=24, steps=50, guidance=6.0)
    times_source: ClassVar[str] = "as Wan 2.1, which it goes on from; nothing was found of its own"

    def __init__(self, pipeline: Any, settings: Settings | None, source: str) -> None:
        super().__init__(pipeline, settings or self.defaults, source)


class _PassingClamp(TorchFunctionMode):
    """Inside, the clamp to [-1, 1] with which diffusers' decoder ends passes the gradient on: it would silence every
    pixel that is saturated, as `vpo_kit.video.straight_through_clamp` says of the one that comes after it.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.clamp and kwargs == {"min": -1.0, "max": 1.0}:
            return _Clamped.apply(*args)
        return func(*args, **(kwargs or {}))


class _Clamped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, video: Tensor) -> Tensor:
        return video.clamp(-1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        return gradient[0]
