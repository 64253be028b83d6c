"""The one sampler: from noise or from a partly noised clip, with or without gradient.

Legend: ``x`` clean latent, ``x_t`` noised latent, ``eps`` noise, all ``[B, C, T, h, w]``; sigma is the noise level.
The step rule is the pipeline's own diffusers scheduler's, so the result is what the pipeline gives for the same noise.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vpo_kit.schedule import Schedule

T = TypeVar("T")
SAMPLING: ContextVar[bool] = ContextVar("sampling", default=False)
"""Whether a step of `sample` that builds no graph is under way: what it predicts enters a video, and no loss."""

BRANCH: ContextVar[str] = ContextVar("branch", default="cond")
"""Which pass of guidance is under way: ``cond``, with the prompt, or ``uncond``."""

Callback = Callable[[int, Tensor], None]
Predict = Callable[[Tensor, Tensor, Any], Tensor]
Constrain = Callable[[Tensor, Tensor | None], Tensor]
"""A function from latents after a step, and the schedule's time at which the next starts (None after the last), to what
goes on.
"""


class Denoiser(Protocol):
    """What the sampler needs of a model; a closed form will do, as the tests show."""

    schedule: Schedule

    def predict(self, latents: Tensor, time: Tensor, conditions: Any) -> Tensor: ...

    def new_scheduler(self, steps: int, shape: Sequence[int]) -> Any:
        """A fresh diffusers scheduler with `steps` steps set, for latents of `shape` ``(C, T, h, w)``."""


@dataclass(frozen=True)
class Guidance:
    """Guidance: `scale` (1 is off), or a function of the network's time that gives it, and the encoded negative prompt,
    one for the batch or one each.

    Classifier-free, in two passes; where the family embeds the scale in its network, in one, without the negative.
    With `detached` no gradient flows through the unconditional pass, which halves the graph of a step. A family that
    is guided in another way gives a child of this class (`VideoModel.guidance`).
    """

    scale: float | Callable[[Tensor], float]
    negative: Any
    detached: bool = False

    def at(self, time: Tensor) -> float:
        """The scale of a step that starts at the network's `time`, one number."""
        return self.scale(time) if callable(self.scale) else self.scale

    def predict(self, predict: Predict, x_t: Tensor, time: Tensor, conditions: Any) -> Tensor:
        """A guided prediction ``[B, C, T, h, w]`` at the network's `time`, one number, from `predict`, one pass.

        The branches go through the network one after the other, as in the pipelines, so that the arithmetic is theirs;
        in one batch the last bits could differ, and guidance multiplies differences.
        """
        times, scale = time.expand(len(x_t)), self.at(time)
        embedded = conditions.with_guidance(scale)
        if embedded is not None:  # a network distilled from guidance: it takes the scale, in one pass
            return predict(x_t, times, embedded)
        if scale == 1:
            return predict(x_t, times, conditions)
        positive = predict(x_t, times, conditions)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detached), _set(BRANCH, "uncond"):
            unconditional = predict(x_t, times, conditions.instead(self.negative))
        return self.combine(positive, unconditional, scale)

    def combine(self, positive: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Both passes' predictions made one."""
        return unconditional + scale * (positive - unconditional)


@dataclass(frozen=True)
class PartialStart:
    """Start at step `first` of the chain, from the clean latent `x` noised to the level at which that step starts."""

    x: Tensor
    first: int


def chain_levels(model: Denoiser, steps: int, shape: Sequence[int]) -> Tensor:
    """The share of noise ``[steps]`` at which each step of the chain starts, as the scheduler shifts it."""
    return model.schedule.noise_level(model.schedule.chain_times(model.new_scheduler(steps, shape))).cpu()


def nearest_step(levels: Tensor, level: float) -> int:
    """The step of a chain, whose steps start at `levels` ``[steps]``, that starts nearest to `level`."""
    return int((levels - level).abs().argmin())


def derive_seed(*parts: int | str) -> int:
    """A seed from a run's seed and what it is for: no random state has to be saved for an exact resume.

    Of its 63 bits torch's generator on the CPU uses the lower 32: among the 10,000 noises of a long run two are the
    same with a chance of one in a hundred, which changes nothing that is measured here.
    """
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


@contextmanager
def _set(variable: ContextVar[T], value: T) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def sample(
    model: Denoiser,
    conditions: Any,
    *,
    noise: Tensor,
    steps: int,
    guidance: Guidance | None = None,
    start: PartialStart | None = None,
    grad_steps: int | Collection[int] = 0,
    again: bool = True,
    callback: Callback | None = None,
    constrain: Constrain | None = None,
) -> Tensor:
    """Denoise `noise` ``[B, C, T, h, w]`` to clean latents in `steps` steps of the full chain.

    With `start` only the chain from step `start.first` on runs. Gradient flows through the network in the last
    `grad_steps` steps, or in those whose numbers it holds (counted in the part of the chain that runs); the others
    build no graph of the network. With `again` each is checkpointed: it runs again in the backward pass, and no more
    than one step's graph is held. `callback` gets each step's number and latents, and
    `constrain` may change them. Frames that are given with the conditions stay as they are.
    """
    scheduler = model.new_scheduler(steps, noise.shape[1:])
    first, latents = 0, conditions.begun(noise)
    if start is not None:
        first = start.first
        t = model.schedule.chain_times(scheduler)[first]
        latents = model.schedule.add_noise(start.x, latents, t.expand(len(noise)))
    latents = conditions.held(latents)  # frames that are given have no noise, and no step changes them
    if hasattr(scheduler, "set_begin_index"):  # the others look the step up by its time
        scheduler.set_begin_index(first)
    timesteps = scheduler.timesteps[first:].to(noise.device)
    count = len(timesteps)
    with_graph = range(count - grad_steps, count) if isinstance(grad_steps, int) else grad_steps
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    drawing = {"generator": step_generators(noise)} if takes_generator else {}

    # each pass by itself, so that one pass's graph is held at a time and a detached pass does not run again
    with_gradient = partial(checkpoint, model.predict, use_reentrant=False) if again else model.predict

    for i, time in enumerate(timesteps):
        if i not in with_graph or not torch.is_grad_enabled():
            with torch.no_grad(), _set(SAMPLING, True):
                prediction = guided(model.predict, latents, time, conditions, guidance)
        else:
            prediction = guided(with_gradient, latents, time, conditions, guidance)
        latents = scheduler.step(prediction, time, latents, return_dict=False, **drawing)[0]
        if constrain is not None:
            later = model.schedule.chain_times(scheduler)[first + i + 1 :]
            latents = constrain(latents, later[0] if len(later) else None)
        if callback is not None:
            callback(i, latents)
    found: Tensor = conditions.held(latents)
    return found


def guided(predict: Predict, x_t: Tensor, time: Tensor, conditions: Any, guidance: Guidance | None) -> Tensor:
    """One prediction at the network's `time`, one number, guided where there is `guidance`."""
    if guidance is None:
        return predict(x_t, time.expand(len(x_t)), conditions)
    return guidance.predict(predict, x_t, time, conditions)
