"""Whether an adapter samples, encodes and decodes as its pipeline does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vpo_kit.inputs import Shade
from vpo_kit.models.base import VideoModel
from vpo_kit.sampler import Guidance, PartialStart, chain_levels, draw_noise, sample
from vpo_kit.testing.calling import prepared_shape
from vpo_kit.testing.finding import AdapterFinding, apart, same_shape
from vpo_kit.testing.parity import NEGATIVE, PROMPTS, Case

SAME = 1e-4
"""The bound of what float32 calculates in two ways: videos in [0, 1], and normalised latents."""
GUIDED = 4.0
"""The scale of the guided videos."""
FULL = 0.999
"""The level of noise from which a chain is taken to start at noise alone."""


def latents_prepared(case: Case) -> Iterator[AdapterFinding]:
    """The pipeline's own latents have the shape that the adapter gives them."""
    seen = prepared_shape(case.model, case.plain, case.call, item=case.model.example(PROMPTS[0]))
    packed = case.model.pack(draw_noise(case.shape, [0], case.model.device))
    yield same_shape("latents as the pipeline prepares them", packed.shape, tuple(seen))


def same_video(case: Case) -> Iterator[AdapterFinding]:
    """The pipeline's own call gives the same video from the same noise; prompt and guidance change it, or that would
    say nothing.
    """
    noise = draw_noise(case.shape, [11, 12], case.model.device)
    found = {}
    for scale, word in ((1.0, "without guidance"), (GUIDED, f"at guidance {GUIDED:g}")):
        found[scale] = case.ours(noise, scale)
        yield apart(f"video as the pipeline's own, {word}", found[scale], case.theirs(noise, scale), SAME)
    size = (len(noise), case.call.frames, 3, case.call.height, case.call.width)
    yield same_shape("shape of a video", found[GUIDED].shape, size)
    swapped = case.ours(noise, GUIDED, PROMPTS[::-1])
    changed = {"guidance": found[1.0], "the prompt": swapped, **_other_pictures(case, noise)}
    for what, other in changed.items():
        yield AdapterFinding(
            what=f"what {what} changes", figure=float((found[GUIDED] - other).abs().max()), bound=1e-6, least=True
        )


def _other_pictures(case: Case, noise: Tensor) -> dict[str, Tensor]:
    """Guided videos of the same noise and prompts with one picture of the example exchanged."""
    items = [case.model.example(prompt) for prompt in PROMPTS]
    changed = {}
    if items[0].image is not None:
        changed["the image"] = [replace(item, image=Shade(5)) for item in items]
    if items[0].last_image is not None:
        changed["the last image"] = [replace(item, last_image=Shade(5)) for item in items]
    return {what: case.ours(noise, GUIDED, others) for what, others in changed.items()}


def batch(case: Case) -> Iterator[AdapterFinding]:
    """Two videos in a batch, each from a picture of its own where the family takes one, are the two alone."""
    noise = draw_noise(case.shape, [21, 22], case.model.device)
    items = [case.model.example(prompt) for prompt in PROMPTS]
    if "image" in case.model.inputs:
        items = [replace(item, image=Shade(i)) for i, item in enumerate(items)]
    alone = [case.ours(row[None], GUIDED, [item]) for row, item in zip(noise, items, strict=True)]
    yield apart("two videos in a batch as each alone", case.ours(noise, GUIDED, items), torch.cat(alone), SAME)


@torch.no_grad()
def entered_chain(case: Case) -> Iterator[AdapterFinding]:
    """The chain entered at its first step is the whole chain. Where it does not start at noise alone, as DDPM's do not,
    the whole chain begins from the same partly noised latents.
    """
    model, steps = case.model, case.call.steps
    noise, x = (draw_noise(case.shape, [seed], model.device) for seed in (31, 32))
    level = float(chain_levels(model, steps, case.shape)[0])
    time = model.schedule.chain_times(model.new_scheduler(steps, case.shape))[:1]
    begin = noise if level > FULL else model.schedule.add_noise(x, noise, time)
    conditions = case.conditions(PROMPTS[:1])
    guidance = Guidance(GUIDED, model.encode_prompts([NEGATIVE]))
    whole = sample(model, conditions, noise=begin, steps=steps, guidance=guidance)
    entered = sample(model, conditions, noise=noise, steps=steps, guidance=guidance, start=PartialStart(x, 0))
    bound = SAME + 10 * (1 - level) if level > FULL else SAME  # what is left of the clip where the chain starts
    yield apart("chain entered at its first step", entered, whole, bound, f"at noise level {level:.4f}")


@torch.no_grad()
def autoencoder(case: Case) -> Iterator[AdapterFinding]:
    """`encode` and `decode` have the right shapes, and together are the autoencoder alone: there and back without any
    scaling.
    """
    model, call = case.model, case.call
    video = torch.rand(2, call.frames, 3, call.height, call.width, generator=torch.Generator().manual_seed(41))
    video = video.to(model.device)
    latents = model.encode(video)
    yield same_shape("shape of encode", latents.shape, (2, *case.shape))
    decoded = model.decode(latents)
    yield same_shape("shape of decode", decoded.shape, tuple(video.shape))
    yield apart("encode and decode as the autoencoder alone", decoded, _there_and_back(case, video), SAME)


def _there_and_back(case: Case, video: Tensor) -> Tensor:
    vae, pixels = case.plain.vae, (2 * video - 1).transpose(1, 2)
    extra = [torch.zeros(1, device=video.device)] if vae.config.get("timestep_conditioning") else []
    by_frames = not case.model.causal and case.model.temporal_stride == 1
    rows = [(row.transpose(0, 1) if by_frames else row[None]) for row in pixels]
    back = [vae.decode(_mode(vae.encode(row)), *extra).sample for row in rows]
    clips = [row.transpose(0, 1) if by_frames else row[0] for row in back]
    return (torch.stack(clips) / 2 + 0.5).clamp(0, 1).transpose(1, 2)


def _mode(encoded: Any) -> Tensor:
    latents: Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent
    return latents


@torch.no_grad()
def decoded_frames(case: Case) -> Iterator[AdapterFinding]:
    """A few frames, decoded with all the context that there is, are those of the whole clip; what `decode_window`
    leaves out is measured, and may be any amount.
    """
    model, (channels, _, height, width) = case.model, case.shape
    frames = 4 * model.multiples[0] + int(model.causal)
    ranges = model.frame_map(frames)
    latents = draw_noise((channels, len(ranges), height, width), [5], model.device)
    wanted = [0, ranges[1][0], ranges[-2][0], frames - 1]
    whole = model.decode(latents)
    yield same_shape("frames of a decoded clip", whole.shape[1:2], (frames,))
    left_out = float((model.decode(latents, frames=wanted[-1:]) - whole[:, wanted[-1:]]).abs().max())
    with _whole_window(model, len(ranges)):
        few = model.decode(latents, frames=wanted)
    note = f"with its decode_window {left_out:.2g}"
    yield apart("a few frames as those of the whole clip", few, whole[:, wanted], SAME, note)


@contextmanager
def _whole_window(model: VideoModel, count: int) -> Iterator[None]:
    model.decode_window = lambda frame: (0, count)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.decode_window
