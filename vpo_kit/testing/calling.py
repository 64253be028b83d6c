"""Diffusers' own call of a pipeline, from a noise that is ours: what `vpo` makes of a model is held against it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.models.base import VideoModel
from vpo_kit.sampler import step_generators

FRAMES = ("num_frames", "frames", "video_length")
SCALE = ("true_cfg_scale", "guidance_scale")
RATE = ("frame_rate", "fps")
"""What pipelines call the number of frames, the scale of guidance in two passes, and frames a second."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of a pipeline's call that are the same for all videos: frames, pixels, steps, and in `more` what
    else its ``__call__`` takes, by name.
    """

    frames: int
    height: int
    width: int
    steps: int = 3
    more: Mapping[str, Any] = field(default_factory=dict)


def call_pipeline(
    model: VideoModel, pipeline: Any, noise: Tensor, call: Call, *, prompts: Sequence[str], negative: str, scale: float
) -> Tensor:
    """The video ``[B, F, 3, H, W]`` of `pipeline`, by itself, from `noise` ``[B, C, T, h, w]``, whose layout in the
    pipeline `model` knows. Texts are as long as the tokenizer says where the pipeline's default is longer.

    Raises `ModelError` where the pipeline prepares latents of another shape, `ConfigError` for an argument in
    `call.more` that it does not take.
    """
    known = inspect.signature(type(pipeline).__call__).parameters
    if unknown := [name for name in call.more if name not in known]:
        raise ConfigError(f"the call of {type(pipeline).__name__} takes no {unknown[0]}")
    generators = step_generators(noise)
    arguments = {
        "prompt": list(prompts), "height": call.height, "width": call.width, "num_inference_steps": call.steps,
        "generator": generators, "output_type": "pt", **_named(known, FRAMES, call.frames),
        **_named(known, RATE, model.settings.fps), **_length(known, pipeline),
        **_guidance(model, known, pipeline, [negative] * len(prompts), scale), **call.more,
    }  # fmt: skip
    with begin_from(pipeline, model.pack(noise), generators):
        video: Tensor = pipeline(**arguments)[0]
    return video.float()


def _named(known: Mapping[str, Any], names: Sequence[str], value: Any) -> dict[str, Any]:
    """The value under the first of the names that the call takes."""
    return next(({name: value} for name in names if name in known), {})


def _length(known: Mapping[str, Any], pipeline: Any) -> dict[str, int]:
    if "max_sequence_length" not in known:
        return {}
    return {"max_sequence_length": min(known["max_sequence_length"].default, pipeline.tokenizer.model_max_length)}


def _guidance(
    model: VideoModel, known: Mapping[str, Any], pipeline: Any, negative: list[str], scale: float
) -> dict[str, Any]:
    """The scale, and the negative prompt where it takes two passes; a pipeline's guider holds the scale itself."""
    if model.encode_prompts(negative[:1]).with_guidance(scale) is not None:
        return {"guidance_scale": scale}
    if getattr(pipeline, "guider", None) is not None:
        pipeline.guider = pipeline.guider.new(guidance_scale=scale)
        return {"negative_prompt": negative}
    return {"negative_prompt": negative, **_named(known, SCALE, scale)}


@contextmanager
def begin_from(pipeline: Any, packed: Tensor, generators: Sequence[torch.Generator]) -> Iterator[None]:
    """The pipeline's own preparation, with `packed` in place of the noise that it draws; the generators are afterwards
    as they were before, for the steps that draw from them. Raises `ModelError` where its latents are of another shape.
    """
    if not hasattr(pipeline, "prepare_latents"):
        raise ModelError(f"{type(pipeline).__name__} has no prepare_latents, by which it could be given its noise")
    prepare, states = pipeline.prepare_latents, [generator.get_state() for generator in generators]

    def prepared(*given: Any, **named: Any) -> Any:
        made = prepare(*given, **named)
        own, more = (made[0], made[1:]) if isinstance(made, tuple) else (made, None)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        if own.shape != packed.shape:
            raise ModelError(
                f"{type(pipeline).__name__} prepares latents of the shape {tuple(own.shape)}, and its adapter "
                f"{tuple(packed.shape)}: see latent_shape, and pack where the layout is another"
            )
        latents = packed.to(own)
        return latents if more is None else (latents, *more)

    pipeline.prepare_latents = prepared
    try:
        yield
    finally:
        del pipeline.prepare_latents
