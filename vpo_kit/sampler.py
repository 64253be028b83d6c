"""The one sampler: from noise or from a partly noised clip, with or without gradient.

Legend: ``x`` clean latent, ``x_t`` noised latent, ``eps`` noise, all ``[B, C, T, h, w]``; sigma is the noise level.
The step rule is the pipeline's own diffusers scheduler's, so the result is what the pipeline gives for the same noise.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vpo_kit.errors import ModelError
from vpo_kit.schedule import Schedule

SAMPLING: ContextVar[bool] = ContextVar("sampling", default=False)
"""True in a step of `sample` that builds no graph: what it predicts enters a video, and no loss."""

Callback = Callable[[int, Tensor], None]


class Denoiser(Protocol):
    """What the sampler needs of a model; a closed form will do, as the tests show."""

    schedule: Schedule

    def predict(self, latents: Tensor, t: Tensor, conditions: Any) -> Tensor: ...

    def new_scheduler(self, steps: int, shape: Sequence[int]) -> Any:
        """A fresh diffusers scheduler with `steps` steps set, for latents of `shape` ``(C, T, h, w)``."""


@dataclass(frozen=True)
class Guidance:
    """Guidance: `scale` (1 is off) and the encoded negative prompt, one for the batch or one each.

    Classifier-free, in two passes; where the family embeds the scale in its network, in one, without the negative.
    With `detached` no gradient flows through the unconditional pass, which halves the graph of a step.
    """

    scale: float
    negative: Any
    detached: bool = False


@dataclass(frozen=True)
class PartialStart:
    """Start at step `first` of the chain, from the clean latent `x` noised to the level at which that step starts."""

    x: Tensor
    first: int


def chain_levels(model: Denoiser, steps: int, shape: Sequence[int]) -> Tensor:
    """The share of noise ``[steps]`` at which each step of the chain starts, as the scheduler shifts it."""
    return model.schedule.noise_level(model.schedule.chain_times(model.new_scheduler(steps, shape))).cpu()


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a run's seed and what it is for: no random state has to be saved for an exact resume."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw_noise(shape: Sequence[int], seeds: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Standard normal ``[len(seeds), *shape]``: row ``i`` depends on ``seeds[i]`` alone, whatever the batch."""
    rows = [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(device)


def step_generators(noise: Tensor) -> list[torch.Generator]:
    """One generator for each video, seeded from its first noise, for schedulers that draw noise in every step.

    So a video follows from its first noise alone, whatever the batch, with these schedulers too.
    """
    rows = noise.detach().flatten(1)[:, :64].float().cpu()
    return [torch.Generator().manual_seed(derive_seed("step", str(row.tolist()))) for row in rows]


def draw_times(
    schedule: Schedule,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    *,
    wanted: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Training times ``[len(seeds)]``: entry ``i`` depends on ``seeds[i]`` alone, and not on its noise.

    With `wanted`, which gets times in the network's own units, only those for which it is true: the same distribution,
    restricted. Raises `ModelError` where there are next to none.
    """
    generators = [torch.Generator().manual_seed(derive_seed(seed, "t")) for seed in seeds]
    return torch.cat([_draw_time(schedule, generator, wanted) for generator in generators]).to(device)


def _draw_time(schedule: Schedule, generator: torch.Generator, wanted: Callable[[Tensor], Tensor] | None) -> Tensor:
    for count in (1, *[1000] * 100):
        t = schedule.sample_t(count, generator)
        if wanted is not None:
            t = t[wanted(schedule.network_time(t))]
        if len(t):
            return t[:1]
    raise ModelError("no training time belongs to the expert that is trained: train the other one, or both")


@contextmanager
def _only_sampling() -> Iterator[None]:
    token = SAMPLING.set(True)
    try:
        yield
    finally:
        SAMPLING.reset(token)


def sample(
    model: Denoiser,
    conditions: Any,
    *,
    noise: Tensor,
    steps: int,
    guidance: Guidance | None = None,
    start: PartialStart | None = None,
    grad_steps: int = 0,
    callback: Callback | None = None,
) -> Tensor:
    """Denoise `noise` ``[B, C, T, h, w]`` to clean latents in `steps` steps of the full chain.

    With `start` only the chain from step `start.first` on runs. Gradient flows through the last `grad_steps`
    steps, each checkpointed; the steps before build no graph. `callback` gets each step's number and latents.
    """
    scheduler = model.new_scheduler(steps, noise.shape[1:])
    first, latents = 0, noise
    if start is not None:
        first = start.first
        t = model.schedule.chain_times(scheduler)[first]
        latents = model.schedule.add_noise(start.x, noise, t.expand(len(noise)))
    if hasattr(scheduler, "set_begin_index"):  # the others look the step up by its time
        scheduler.set_begin_index(first)
    timesteps = scheduler.timesteps[first:].to(noise.device)
    graph_from = len(timesteps) - grad_steps
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    drawing = {"generator": step_generators(noise)} if takes_generator else {}

    # each pass by itself, so that one pass's graph is held at a time and a detached pass does not run again
    checkpointed = partial(checkpoint, model.predict, use_reentrant=False)

    for i, t in enumerate(timesteps):
        if i < graph_from or not torch.is_grad_enabled():
            with torch.no_grad(), _only_sampling():
                prediction = _guided(model.predict, latents, t, conditions, guidance)
        else:
            prediction = _guided(checkpointed, latents, t, conditions, guidance)
        latents = scheduler.step(prediction, t, latents, return_dict=False, **drawing)[0]
        if callback is not None:
            callback(i, latents)
    return latents


def _guided(
    predict: Callable[[Tensor, Tensor, Any], Tensor], x_t: Tensor, t: Tensor, conditions: Any, guidance: Guidance | None
) -> Tensor:
    """One prediction. The branches of guidance go through the network one after the other, as in the pipelines, so
    that the arithmetic is theirs; in one batch the last bits could differ, and guidance multiplies differences.
    """
    count = len(x_t)
    if guidance is None or guidance.scale == 1:
        return predict(x_t, t.expand(count), conditions)
    embedded = conditions.with_guidance(guidance.scale)
    if embedded is not None:  # a network distilled from guidance: it takes the scale, in one pass
        return predict(x_t, t.expand(count), embedded)
    positive = predict(x_t, t.expand(count), conditions)
    negative = guidance.negative if len(guidance.negative) == count else guidance.negative.expand(count)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not guidance.detached):
        unconditional = predict(x_t, t.expand(count), negative)
    return unconditional + guidance.scale * (positive - unconditional)
