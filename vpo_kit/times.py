"""The noise levels at which a method trains: the distribution of training times, and how they are drawn.

Legend: ``place`` where on a family's time axis, 0 clean to 1 noise: the flow time, or an index over the number of
training steps. ``share`` a number in (0, 1) that is drawn; the distribution's quantile function turns it into a place.

Sources: logit-normal and mode sampling, SD3 (arXiv 2403.03206, section 3.1); the shift ``s t / (1 + (s - 1) t)``,
its section 5.3.2. The names of the parameters are diffusers'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator
from torch import Tensor

from vpo_kit.errors import ConfigError
from vpo_kit.sampler import derive_seed
from vpo_kit.schedule import Schedule

CELLS = 20_000
"""Pieces of the share's axis; what is trained and in range is decided for each of them by its middle."""


class Times(BaseModel):
    """A distribution of training times; ``uniform`` alone is short for ``{name: uniform}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["logit_normal", "uniform", "mode", "chain"] = Field(
        description="logit_normal, uniform and mode as in SD3; chain: the times that the sampler visits at this size"
    )
    logit_mean: float = Field(0.0, description="logit_normal: positive is more noise")
    logit_std: float = Field(1.0, gt=0, description="logit_normal")
    mode_scale: float = Field(1.29, ge=-1, le=1.75, description="mode: positive is more often the middle (SD3's)")
    shift: PositiveFloat | Literal["sampler"] = Field(
        1.0,
        description="of the drawn times towards noise; sampler: as the sampler shifts its chain at this size",
    )
    steps: int | None = Field(None, ge=1, description="chain: of how many steps; default: those of sampling")
    low: float = Field(0.0, ge=0, lt=1, description="lowest time, from 0 (clean) to 1 (noise)")
    high: float = Field(1.0, gt=0, le=1, description="highest time")
    experts: dict[Literal["high_noise", "low_noise"], float] | None = Field(
        None, description="of a model with two: the share of draws of each; default: as they fall"
    )
    stratified: bool = Field(False, description="the draws of a batch are spread evenly over the distribution")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _sensible(self) -> Times:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.experts is not None and (min(self.experts.values()) < 0 or sum(self.experts.values()) <= 0):
            raise ValueError("experts: shares must not be negative, and not all zero")
        reads = {"logit_normal": ("logit_mean", "logit_std"), "mode": ("mode_scale",), "chain": ("steps",)}
        others = {field for name, fields in reads.items() if name != self.name for field in fields}
        others |= {"shift"} if self.name == "chain" else set()
        given = sorted(n for n in others & self.model_fields_set if getattr(self, n) != _default(n))
        if given:
            raise ValueError(f"{self.name} does not use {given[0]}: leave it out")
        return self

    def describe(self) -> str:
        """The distribution in a few words."""
        said = {
            "logit_normal": f"logit-normal({self.logit_mean:g}, {self.logit_std:g})",
            "mode": f"mode({self.mode_scale:g})",
            "uniform": "uniform",
            "chain": "the sampler's own",
        }[self.name]
        if self.shift == 1:
            return said
        return f"{said}, the sampler's shift" if self.shift == "sampler" else f"{said}, shift {self.shift:g}"


def _default(name: str) -> Any:
    return Times.model_fields[name].default


@dataclass(frozen=True)
class Strata:
    """Places of draws in a batch of `total`: each draw gets a piece of the distribution of its own, in an order that
    `seed` shuffles, the same in every process.
    """

    places: Sequence[int]
    total: int
    seed: int


class TimeSampler:
    """A distribution of training times of a model: those of `times` for which a trained network is there.

    `chain` ``[N]`` holds the schedule's times that the sampler visits; `experts` maps the name of each trained network
    (of a model with two: the family's word for it) to a function that says which of the network's own times belong to
    it; `shift` is what the sampler has, for ``shift: sampler``. Raises `ConfigError` where no time is left.
    """

    def __init__(
        self,
        times: Times,
        schedule: Schedule,
        *,
        chain: Tensor,
        shift: float,
        experts: Mapping[str, Callable[[Tensor], Tensor]],
    ) -> None:
        self.times = times
        self._schedule = schedule
        self._chain = chain.cpu().sort().values
        self._shift = shift if times.shift == "sampler" else times.shift
        shares = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS
        middle = self._at(shares)
        weights = self._weights(middle, experts)
        if not float(weights.sum()) > 0:
            raise ConfigError(
                "method.times: no training time is left between its low and high for the network that is trained"
            )
        self._ends = (weights / weights.sum()).cumsum(0)
        self._weighted = weights > 0

    @property
    def stratified(self) -> bool:
        return self.times.stratified

    def places(self, shares: Sequence[float]) -> list[float]:
        """The places on the axis below which so much of what is drawn lies, from 0 (clean) to 1 (noise)."""
        found: list[float] = self._schedule.place(self._inside(torch.tensor(shares, dtype=torch.float64))).tolist()
        return found

    def draw(self, seeds: Sequence[int], device: torch.device | str = "cpu", strata: Strata | None = None) -> Tensor:
        """The schedule's times ``[len(seeds)]``: entry ``i`` depends on ``seeds[i]`` alone, and not on its noise; with
        `strata` also on its place in the batch.
        """
        generators = [torch.Generator().manual_seed(derive_seed(seed, "t")) for seed in seeds]
        share = torch.cat([torch.rand(1, generator=generator, dtype=torch.float64) for generator in generators])
        if strata is not None:
            order = torch.randperm(strata.total, generator=torch.Generator().manual_seed(strata.seed))
            share = (order[list(strata.places)] + share) / strata.total
        return self._inside(share).to(device)

    def _inside(self, share: Tensor) -> Tensor:
        """The share's time in the part of the distribution that is wanted."""
        cell = torch.searchsorted(self._ends, share, right=True).clamp_max(CELLS - 1)
        start = torch.where(cell > 0, self._ends[cell - 1], torch.zeros(()).double())
        inner = ((share - start) / (self._ends[cell] - start)).clamp(0, 1 - 1e-9)
        inner = torch.where(self._whole(cell), inner, 0.5)
        return self._at((cell + inner) / CELLS)

    def _whole(self, cell: Tensor) -> Tensor:
        """Whether the neighbours are wanted too; else the cell may reach over the edge, and its middle is taken."""
        below = self._weighted[(cell - 1).clamp_min(0)]
        above = self._weighted[(cell + 1).clamp_max(CELLS - 1)]
        return below & above

    def _at(self, share: Tensor) -> Tensor:
        """The schedule's time at a share of the whole distribution."""
        times = self.times
        if times.name == "chain":
            return self._chain[(share * len(self._chain)).long().clamp_max(len(self._chain) - 1)]
        if times.name == "logit_normal":
            normal = math.sqrt(2) * torch.erfinv(2 * share - 1)
            place = torch.sigmoid(times.logit_mean + times.logit_std * normal)
        elif times.name == "mode":
            flipped = 1 - share
            place = 1 - flipped - times.mode_scale * (torch.cos(math.pi / 2 * flipped) ** 2 - 1 + flipped)
        else:
            place = share
        return self._schedule.at(self._shift * place / (1 + (self._shift - 1) * place))

    def _weights(self, t: Tensor, experts: Mapping[str, Callable[[Tensor], Tensor]]) -> Tensor:
        """How often each cell is drawn, not normalised."""
        place, time = self._schedule.place(t), self._schedule.network_time(t)
        inside = (place >= self.times.low) & (place <= self.times.high)
        own = {name: (inside & belongs(time)).double() for name, belongs in experts.items()}
        if self.times.experts is None:
            return torch.stack(list(own.values())).amax(0)
        shares = {str(name): share for name, share in self.times.experts.items()}
        if unknown := sorted(set(shares) - set(experts)):
            raise ConfigError(f"method.times.experts: {unknown[0]} is not among the trained networks: leave it out")
        parts = [value / value.sum().clamp_min(1) * shares.get(name, 0.0) for name, value in own.items()]
        return torch.stack(parts).sum(0)
