"""Noising, network target and clean prediction, for rectified flow and for DDPM, behind one interface.

Legend: ``x`` clean latent, ``eps`` noise, ``x_t`` noised latent, all ``[B, C, T, h, w]``; ``t`` ``[B]``: flow time in
[0, 1] (0 clean, 1 noise) for flow, an integer index in [0, num_train_timesteps) for DDPM.

Only what training needs is here. The rules of a sampling step are the pipeline's own diffusers scheduler's.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from vpo_kit.errors import ModelError


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))


class Schedule(ABC):
    """One family's noising process."""

    @abstractmethod
    def sample_t(self, count: int, generator: torch.Generator) -> Tensor:
        """Training times ``[count]`` on the CPU."""

    @abstractmethod
    def add_noise(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """``x_t``."""

    @abstractmethod
    def target(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network is trained to give at ``x_t``."""

    @abstractmethod
    def to_clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The clean latent that the network's output stands for."""

    @abstractmethod
    def network_time(self, t: Tensor) -> Tensor:
        """``t`` in the units of the network's timestep input."""

    @abstractmethod
    def chain_times(self, scheduler: Any) -> Tensor:
        """``t`` at which each step of a sampling chain starts, from a diffusers scheduler whose steps are set."""

    @abstractmethod
    def noise_level(self, t: Tensor) -> Tensor:
        """The share of noise in ``x_t``, in [0, 1]: the flow time of the same signal-to-noise ratio."""


class FlowSchedule(Schedule):
    """Rectified flow: ``x_t = (1 - t) x + t eps``, target ``eps - x``; ``t`` is logit-normal(0, 1) in training.

    With `inverted` (Mochi) the network's own time runs from noise to data: it sees ``1 - t`` and gives ``x - eps``.
    """

    def __init__(self, num_train_timesteps: int = 1000, *, inverted: bool = False) -> None:
        self.num_train_timesteps = num_train_timesteps
        self.inverted = inverted

    def sample_t(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.sigmoid(torch.randn(count, generator=generator))

    def add_noise(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        t = _wide(t, x)
        return (1 - t) * x + t * eps

    def target(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return x - eps if self.inverted else eps - x

    def to_clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        velocity = -prediction if self.inverted else prediction
        return x_t - _wide(t, x_t) * velocity

    def network_time(self, t: Tensor) -> Tensor:
        return (1 - t if self.inverted else t) * self.num_train_timesteps

    def chain_times(self, scheduler: Any) -> Tensor:
        sigmas: Tensor = scheduler.sigmas[:-1]
        return 1 - sigmas if self.inverted else sigmas

    def noise_level(self, t: Tensor) -> Tensor:
        return t


class DDPMSchedule(Schedule):
    """``x_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps``; the target is ``eps``, or ``v`` as CogVideoX has it."""

    def __init__(self, alphas_cumprod: Tensor, *, v_prediction: bool = False) -> None:
        self.alphas_cumprod = alphas_cumprod
        self.v_prediction = v_prediction

    def _levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        abar = self.alphas_cumprod.to(t.device)[t]
        return _wide(abar.sqrt(), like), _wide((1 - abar).sqrt(), like)

    def sample_t(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(len(self.alphas_cumprod), (count,), generator=generator)

    def add_noise(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self._levels(t, x)
        return signal * x + sigma * eps

    def target(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        if not self.v_prediction:
            return eps
        signal, sigma = self._levels(t, x)
        return signal * eps - sigma * x

    def to_clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self._levels(t, x_t)
        if self.v_prediction:
            return signal * x_t - sigma * prediction
        return (x_t - sigma * prediction) / signal

    def network_time(self, t: Tensor) -> Tensor:
        return t

    def chain_times(self, scheduler: Any) -> Tensor:
        times: Tensor = scheduler.timesteps
        return times.long()

    def noise_level(self, t: Tensor) -> Tensor:
        abar = self.alphas_cumprod.to(t.device)[t]
        return ((1 - abar).sqrt() / (abar.sqrt() + (1 - abar).sqrt())).float()


def from_scheduler(scheduler: Any) -> Schedule:
    """The schedule behind a diffusers scheduler.

    Raises `ModelError` for a prediction type that is not known and for a chain that cannot be entered halfway.
    """
    config = scheduler.config
    name, kind = type(scheduler).__name__, config.get("prediction_type", "flow_prediction")
    if kind == "flow_prediction" or config.get("use_flow_sigmas"):
        return FlowSchedule(config.num_train_timesteps, inverted=bool(config.get("invert_sigmas")))
    if kind not in ("epsilon", "v_prediction"):
        raise ModelError(f"scheduler {name} predicts {kind!r}: flow, epsilon and v_prediction work")
    if float(scheduler.init_noise_sigma) != 1 or _length(scheduler, 4) != 4:
        # latents in other units (Euler, LMS, Heun), or steps taken twice (PNDM): no part of such a chain stands alone
        raise ModelError(f"scheduler {name} does not work here: save the pipeline with DDIMScheduler")
    return DDPMSchedule(scheduler.alphas_cumprod, v_prediction=kind == "v_prediction")


def _length(scheduler: Any, steps: int) -> int:
    probe = copy.deepcopy(scheduler)
    probe.set_timesteps(steps)
    return len(probe.timesteps)
