"""First-order stochastic steps with likelihoods, on the levels of any chain: what reinforcement learning samples with.

A flow's chain becomes a stochastic one of the same marginals (Flow-GRPO, arXiv 2505.05470; DanceGRPO, arXiv
2505.07818), a DDPM's is DDIM's with eta (arXiv 2010.02502, as DDPO uses it). The steps are first order on the
scheduler's own levels also where it is itself a solver of several steps, such as UniPC: videos then differ from its.

Legend: ``x_t`` latents ``[B, C, T, h, w]`` at time ``t``; a step goes from ``t`` to ``end``, ``Delta = t - end``; ``v``
is the velocity, ``sigma`` how much noise a step adds for each root of time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vpo_kit.errors import ModelError
from vpo_kit.sampler import Denoiser
from vpo_kit.schedule import DDPMSchedule, FlowSchedule, Schedule

Kind = Literal["flow", "constant"]
LEVELS = {"flow": 0.7, "constant": 0.3, "ddim": 1.0}
"""How much noise the papers add: a of Flow-GRPO, DanceGRPO's sigma, and eta of DDPO."""


@dataclass(frozen=True)
class Step:
    """The place to which one step goes: its mean, and its deviation, a number; 0 is a step without noise."""

    mean: Tensor
    deviation: float

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-probability of each video ``[B]``: the mean over its numbers, not the sum, so that it does not grow
        with the video.
        """
        apart = (x.float() - self.mean.float()) / self.deviation
        per_number = -0.5 * apart.pow(2) - math.log(self.deviation) - 0.5 * math.log(2 * math.pi)
        return per_number.mean((1, 2, 3, 4))


class Chain:
    """The steps of a chain: the network's `times`, and from the network's output to where a step goes.

    `level` is ``a`` of ``sigma = a sqrt(t / (1 - t))`` (`kind` flow; in the first step, where that has no bound, with
    the second step's 1 - t), sigma itself (constant), or eta of DDIM for a DDPM model; None is the papers'. `note` says
    in a line where the scheduler's own steps are others. Raises `ModelError` for a scheduler without levels.
    """

    def __init__(
        self, model: Denoiser, steps: int, shape: Sequence[int], kind: Kind = "flow", level: float | None = None
    ) -> None:
        scheduler = model.new_scheduler(steps, shape)
        self._schedule: Schedule = model.schedule
        self._kind = kind
        self.times: Tensor = scheduler.timesteps
        self.starts = model.schedule.chain_times(scheduler).cpu()
        flow = isinstance(model.schedule, FlowSchedule)
        self.level = LEVELS[kind if flow else "ddim"] if level is None else level
        name = type(scheduler).__name__
        own = f"{name}: fresh videos are sampled by first-order steps on its levels, not by its own, which are others"
        self.note = None if name.startswith(("FlowMatchEuler", "DDIM", "CogVideoXDDIM")) else own
        self._ends = _flow_ends(scheduler, self.starts, model.schedule) if flow else _ddpm_ends(self.starts)

    def __len__(self) -> int:
        return len(self.times)

    def step(self, number: int, x: Tensor, prediction: Tensor, *, noisy: bool = True) -> Step:
        """The place to which step `number` goes from `x`, given the network's output there."""
        if isinstance(self._schedule, DDPMSchedule):
            return self._ddim(self._schedule, number, x, prediction, self.level if noisy else 0.0)
        assert isinstance(self._schedule, FlowSchedule)
        t, end = float(self.starts[number]), float(self._ends[number])
        sigma = self._sigma(number) if noisy else 0.0
        v = -prediction if self._schedule.inverted else prediction
        drift = v + sigma**2 / (2 * t) * (x + (1 - t) * v) if sigma else v
        # the difference of the levels as the schedulers take it, in their own precision
        return Step(x + (self._ends[number] - self.starts[number]) * drift, sigma * math.sqrt(t - end))

    def _sigma(self, number: int) -> float:
        if self._kind == "constant":
            return self.level
        t, second = float(self.starts[number]), float(self.starts[min(1, len(self) - 1)])
        return self.level * math.sqrt(t / (1 - min(t, max(second, 1e-3))))

    def _ddim(self, schedule: DDPMSchedule, number: int, x: Tensor, prediction: Tensor, eta: float) -> Step:
        abar = schedule.alphas_cumprod
        at = float(abar[int(self.starts[number])])
        to = float(abar[int(self._ends[number])]) if self._ends[number] >= 0 else 1.0
        t = self.starts[number].expand(len(x)).to(x.device)
        clean = schedule.to_clean(x, prediction, t)
        eps = (x - math.sqrt(at) * clean) / math.sqrt(1 - at)
        deviation = eta * math.sqrt((1 - to) / (1 - at) * (1 - at / to)) if at < to else 0.0
        return Step(math.sqrt(to) * clean + math.sqrt(max(1 - to - deviation**2, 0.0)) * eps, deviation)


def _flow_ends(scheduler: Any, starts: Tensor, schedule: Schedule) -> Tensor:
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None or len(sigmas) != len(scheduler.timesteps) + 1:
        raise ModelError(
            f"scheduler {type(scheduler).__name__} names no level for the end of each step: take FlowMatchEuler"
        )
    last = 1 - sigmas[-1:] if isinstance(schedule, FlowSchedule) and schedule.inverted else sigmas[-1:]
    return torch.cat([starts[1:], last.cpu()])


def _ddpm_ends(starts: Tensor) -> Tensor:
    """Each step ends where the next one starts; the last one, at -1, without noise."""
    return torch.cat([starts[1:], torch.tensor([-1])])
