"""Videos as rows: noised each with a time and a noise of its own, and losses that are sums over them.

Legend: ``R`` rows, ``D`` draws of (t, noise) for each of ``N`` videos, ``R = D N``, draw by draw; tensors of rows are
``[R, C, T, h, w]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from vpo_kit import losses
from vpo_kit.methods.base import Context, StepOutput
from vpo_kit.models.conditions import Conditions
from vpo_kit.sampler import derive_seed, draw_noise
from vpo_kit.schedule import Schedule
from vpo_kit.times import Strata, TimeSampler

Piece = TypeVar("Piece")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Clean `x`, noised `x_t`, the network's `target`; `t` ``[R]`` is the schedule's time and `time` the network's, and
    `weight` ``[R, T, h, w]`` of mean 1, where there is one, what counts of the errors.
    """

    x: Tensor
    x_t: Tensor
    target: Tensor
    t: Tensor
    time: Tensor
    conditions: Conditions
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(
            x=self.x[rows],
            x_t=self.x_t[rows],
            target=self.target[rows],
            t=self.t[rows],
            time=self.time[rows],
            conditions=self.conditions[rows],
            weight=None if self.weight is None else self.weight[rows],
        )


def rows_of(
    schedule: Schedule, x: Tensor, eps: Tensor, t: Tensor, conditions: Conditions, mask: Tensor | None = None
) -> Rows:
    """Videos `x` with noise `eps` at times `t` of the schedule. Errors count inside a `mask` ``[R, T, h, w]`` alone;
    frames that are given with the conditions have neither noise nor error.
    """
    counted = conditions.free(mask, x)
    return Rows(
        x=x,
        x_t=conditions.held(schedule.add_noise(x, eps, t)),
        target=conditions.held(schedule.target(x, eps, t), 0.0),
        t=t,
        time=schedule.network_time(t),
        conditions=conditions,
        weight=None if counted is None else losses.mask_weight(counted),
    )


@dataclass(frozen=True)
class Draws:
    """How often and when: `count` draws for each video, at the times that `times` gives for latents of a shape; `room`
    is how many videos the global batch of a step has place for, and `name` what the draws are for.
    """

    name: str
    count: int
    times: Callable[[Sequence[int]], TimeSampler]
    room: int

    def rows(
        self,
        context: Context,
        step: int,
        x: Tensor,
        conditions: Conditions,
        numbers: Sequence[int],
        mask: Tensor | None = None,
    ) -> Rows:
        """The videos `x` ``[N, C, T, h, w]``, whose places in the global batch are `numbers`, once for each draw; of
        each counts what its `mask` ``[N, T, h, w]`` covers.
        """
        schedule, seed = context.policy.model.schedule, context.seed
        keys = [(number, d) for d in range(self.count) for number in numbers]
        seeds = [derive_seed(seed, self.name, step, *key) for key in keys]
        places = [d * self.room + number for number, d in keys]
        strata = Strata(places, self.count * self.room, derive_seed(seed, "strata", step))
        times = self.times(x.shape[1:])
        t = times.draw(seeds, x.device, strata if times.stratified else None)
        clean, eps = torch.cat([x] * self.count), draw_noise(x.shape[1:], seeds, x.device)
        masks = None if mask is None else torch.cat([mask] * self.count)
        return rows_of(schedule, clean, eps, t, Conditions.cat([conditions] * self.count), masks)


def summed(pieces: Sequence[Piece], part: Callable[[Piece], tuple[Tensor, dict[str, Tensor]]]) -> StepOutput:
    """A step whose loss is a sum over rows that are cut into `pieces`: `part` gives a piece's share of the loss, with
    its graph, and a value for each row of what is reported. So any cut is exact, and one graph is held at a time. The
    report holds each value's mean over all rows when the last piece has been asked for.
    """
    report = dict[str, float]()

    def parts() -> Iterator[Tensor]:
        seen: list[dict[str, Tensor]] = []
        for rows in pieces:
            loss, found = part(rows)
            seen.append(found)
            if len(seen) == len(pieces):
                report.update({key: float(torch.cat([one[key] for one in seen]).mean()) for key in found})
            yield loss

    if len(pieces) == 1:
        return StepOutput(loss=next(parts()), report=report)
    return StepOutput(loss=None, report=report, parts=parts())
