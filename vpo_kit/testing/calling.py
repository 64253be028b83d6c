"""Diffusers' own call of a pipeline, from a noise that is ours: what `vpo` makes of a model is held against it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor

from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.inputs import Inputs, as_image
from vpo_kit.models.base import VideoModel
from vpo_kit.registry import nearest
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


def check_call(kind: type, call: Call) -> None:
    """Raises `ConfigError` where the call of the pipelines of class `kind` does not have an argument in `call.more`."""
    known = set(inspect.signature(kind.__call__).parameters) - {"self"}
    for name in call.more:
        if name not in known:
            raise ConfigError(f"the call of {kind.__name__} has no argument {name!r}{nearest(name, known)}")


def call_pipeline(
    model: VideoModel, pipeline: Any, noise: Tensor, call: Call, *, item: Inputs, negative: str, scale: float
) -> Tensor:
    """The video ``[1, F, 3, H, W]`` of `pipeline`, by itself, of an item whose pictures have its size.

    It begins from `noise` ``[1, C, T, h, w]``, in which frames that are given have their place, and whose layout in the
    pipeline `model` knows. Raises `ModelError` where the pipeline prepares latents of another shape.
    """
    packed, generators = model.pack(noise), step_generators(noise)
    states = [generator.get_state() for generator in generators]

    def begin(own: Tensor) -> Tensor:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)  # as before: the steps may draw from them
        if own.shape != packed.shape:
            raise ModelError(
                f"{type(pipeline).__name__} prepares latents of the shape {tuple(own.shape)}, and its adapter "
                f"{tuple(packed.shape)}: see latent_shape, and pack where the layout is another"
            )
        return packed.to(own)

    arguments = arguments_of(model, pipeline, call, item=item, negative=negative, scale=scale)
    with prepared(pipeline, begin):
        video: Tensor = pipeline(**{"generator": generators, **arguments})[0]
    return video.float()


def prepared_shape(model: VideoModel, pipeline: Any, call: Call, *, item: Inputs) -> tuple[int, ...]:
    """The shape of the latents that the pipeline prepares for one video; its call is left there. Raises `ModelError`
    where it prepares none.
    """

    class Prepared(Exception):
        """Found what was looked for."""

    seen: list[tuple[int, ...]] = []

    def leave(own: Tensor) -> Tensor:
        seen.append(tuple(own.shape))
        raise Prepared

    arguments = arguments_of(model, pipeline, call, item=item, negative="", scale=1.0)
    with prepared(pipeline, leave), suppress(Prepared):
        pipeline(**arguments)
    if not seen:
        raise ModelError(f"the call of {type(pipeline).__name__} does not use its prepare_latents")
    return seen[0]


def arguments_of(
    model: VideoModel, pipeline: Any, call: Call, *, item: Inputs, negative: str, scale: float
) -> dict[str, Any]:
    """What the pipeline's call takes, under its own names. Texts are as long as the tokenizer says where the pipeline's
    default is longer.
    """
    known = inspect.signature(type(pipeline).__call__).parameters
    return {
        "prompt": [item.prompt], **_size(known, call), "num_inference_steps": call.steps,
        "output_type": "pt", **_named(known, FRAMES, call.frames), **_named(known, RATE, model.settings.fps),
        **_length(known, pipeline), **_guidance(model, known, pipeline, [negative], scale),
        **_pictures(call, item), **call.more,
    }  # fmt: skip


def _named(known: Mapping[str, Any], names: Sequence[str], value: Any) -> dict[str, Any]:
    """The value under the first of the names that the call takes."""
    return next(({name: value} for name in names if name in known), {})


def _size(known: Mapping[str, Any], call: Call) -> dict[str, int]:
    """Height and width, where the call takes them: some take the picture's."""
    return {name: value for name, value in (("height", call.height), ("width", call.width)) if name in known}


def _pictures(call: Call, item: Inputs) -> dict[str, Image.Image]:
    """The item's pictures at the size of the video, so that nothing is resized."""
    found = {"image": item.image, "last_image": item.last_image}
    return {name: as_image(one.read(call.height, call.width)) for name, one in found.items() if one is not None}


def _length(known: Mapping[str, Any], pipeline: Any) -> dict[str, int]:
    longest = getattr(getattr(pipeline, "tokenizer", None), "model_max_length", None)
    if longest is None or "max_sequence_length" not in known:
        return {}
    return {"max_sequence_length": min(known["max_sequence_length"].default, longest)}


def _guidance(
    model: VideoModel, known: Mapping[str, Any], pipeline: Any, negative: list[str], scale: float
) -> dict[str, Any]:
    """The scale, and the negative prompt where it takes two passes; a pipeline's guider holds the scale itself."""
    if model.encode_prompts(negative[:1]).with_guidance(scale) is not None:
        return {"guidance_scale": scale}
    if getattr(pipeline, "guider", None) is not None:
        pipeline.guider = pipeline.guider.new(guidance_scale=scale)
        return {"negative_prompt": negative}
    return {**_named(known, ["negative_prompt"], negative), **_named(known, SCALE, scale)}


@contextmanager
def prepared(pipeline: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, the pipeline begins from what `change` makes of the noise that it draws, in the pipeline's own layout.

    Raises `ModelError` where it does not prepare its latents in a method of its own.
    """
    if not hasattr(pipeline, "prepare_latents"):
        raise ModelError(f"{type(pipeline).__name__} has no prepare_latents, by which it could be given its noise")
    prepare, module = pipeline.prepare_latents, sys.modules[type(pipeline).__module__]
    drawn = getattr(module, "retrieve_latents", None)

    def instead(*given: Any, **named: Any) -> Any:
        made = prepare(*given, **named)
        return (change(made[0]), *made[1:]) if isinstance(made, tuple) else change(made)

    pipeline.prepare_latents = instead
    if drawn is not None:  # of a picture: here it is the mode, everywhere
        vars(module)["retrieve_latents"] = lambda found, *_, **__: found.latent_dist.mode()
    try:
        yield
    finally:
        del pipeline.prepare_latents
        if drawn is not None:
            vars(module)["retrieve_latents"] = drawn
