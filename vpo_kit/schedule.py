"""Noising, network target and clean prediction, for rectified flow and for DDPM, behind one interface.

Legend: ``x`` clean latent, ``eps`` noise, ``x_t`` noised latent, all ``[B, C, T, h, w]``. A time has four units, each
with a name of its own, all ``[B]``: ``t``, the schedule's: flow time in [0, 1] (0 clean, 1 noise) for flow, an integer
index in [0, num_train_timesteps) for DDPM; ``time``, the network's input; ``level``, the share of noise in [0, 1]: the
flow time of the same signal-to-noise ratio; ``place`` in [0, 1], where ``t`` lies on its own axis.

Only what training needs is here. The rules of a sampling step are the pipeline's own diffusers scheduler's.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from vpo_kit.errors import ModelError


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))


class Schedule(ABC):
    """One family's noising process."""

    @abstractmethod
    def at(self, place: Tensor) -> Tensor:
        """The ``t`` at a place on its axis, from 0 (clean) to 1 (noise)."""

    @abstractmethod
    def place(self, t: Tensor) -> Tensor:
        """The place of ``t`` on its axis, in float64: the inverse of `at`."""

    @abstractmethod
    def add_noise(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The noised latent ``x_t``."""

    @abstractmethod
    def target(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network is trained to give at ``x_t``."""

    @abstractmethod
    def to_clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The clean latent that the network's output stands for."""

    @abstractmethod
    def network_time(self, t: Tensor) -> Tensor:
        """The ``time`` that the network is given at ``t``."""

    @abstractmethod
    def level_at(self, time: Tensor) -> Tensor:
        """The ``level`` of what the network is given with the ``time``."""

    @abstractmethod
    def chain_times(self, scheduler: Any) -> Tensor:
        """The ``t`` at which each step of a sampling chain starts, from a diffusers scheduler whose steps are set."""

    @abstractmethod
    def noise_level(self, t: Tensor) -> Tensor:
        """The ``level`` of ``x_t``."""


class FlowSchedule(Schedule):
    """Rectified flow: ``x_t = (1 - t) x + t eps``, target ``eps - x``; ``level`` and ``place`` are ``t``.

    With `inverted` (Mochi) the network's own time runs from noise to data: it sees ``1 - t`` and gives ``x - eps``.
    """

    def __init__(self, num_train_timesteps: int = 1000, *, inverted: bool = False) -> None:
        self.num_train_timesteps = num_train_timesteps
        self.inverted = inverted

    def at(self, place: Tensor) -> Tensor:
        return place.float()

    def place(self, t: Tensor) -> Tensor:
        return t.double()

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

    def level_at(self, time: Tensor) -> Tensor:
        t = time / self.num_train_timesteps
        return 1 - t if self.inverted else t

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

    def at(self, place: Tensor) -> Tensor:
        return (place * len(self.alphas_cumprod)).long().clamp_max(len(self.alphas_cumprod) - 1)

    def place(self, t: Tensor) -> Tensor:
        return t.double() / len(self.alphas_cumprod)

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

    def level_at(self, time: Tensor) -> Tensor:
        return self.noise_level(time.long())

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
    flow = kind == "flow_prediction" or bool(config.get("use_flow_sigmas"))
    if not flow and kind not in ("epsilon", "v_prediction"):
        raise ModelError(f"scheduler {name} predicts {kind!r}: flow, epsilon and v_prediction work")
    if float(getattr(scheduler, "init_noise_sigma", 1.0)) != 1 or not _enters_halfway(scheduler):
        # latents in other units (Euler, LMS), or steps taken twice (Heun, PNDM): no part of such a chain stands alone
        better = "FlowMatchEulerDiscreteScheduler" if flow else "DDIMScheduler"
        raise ModelError(f"scheduler {name} does not work here: save the pipeline with {better}")
    if flow:
        return FlowSchedule(config.num_train_timesteps, inverted=bool(config.get("invert_sigmas")))
    return DDPMSchedule(scheduler.alphas_cumprod, v_prediction=kind == "v_prediction")


def _enters_halfway(scheduler: Any) -> bool:
    """Whether a chain of 4 steps visits 4 different times: then each of its steps can be the first."""
    probe = copy.deepcopy(scheduler)
    if probe.config.get("use_dynamic_shifting"):
        probe.set_timesteps(4, mu=1.0)
    else:
        probe.set_timesteps(4)
    return len(probe.timesteps) == 4 and len(set(probe.timesteps.tolist())) == 4
