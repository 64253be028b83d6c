"""Both members of pairs noised alike, and what a network gives for them.

Legend: ``P`` pairs, ``T`` latent frames; latents are ``[P, C, T, h, w]``. Rows are videos, ``2P`` of them: all first
members, then all second ones. Errors of rows are ``[2P, T]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vpo_kit import losses
from vpo_kit.methods.base import Batch, Context, Policy, shared_runs
from vpo_kit.methods.rows import Rows, rows_of
from vpo_kit.models.conditions import Conditions
from vpo_kit.sampler import draw_noise
from vpo_kit.times import Strata, TimeSampler


@dataclass(frozen=True, kw_only=True)
class Noised:
    """Both members of P pairs at the same time and the same noise, as rows; `level` ``[P]`` is the share of noise, and
    `weight` ``[2P, T, h, w]``, where there is one, what counts of the errors.
    """

    x_t: Tensor
    target: Tensor
    time: Tensor
    conditions: Conditions
    level: Tensor
    weight: Tensor | None = None

    @staticmethod
    def of(rows: Rows, level: Tensor) -> Noised:
        """Rows that are at the levels `level`."""
        return Noised(
            x_t=rows.x_t,
            target=rows.target,
            time=rows.time,
            conditions=rows.conditions,
            level=level,
            weight=rows.weight,
        )

    def __len__(self) -> int:
        return len(self.x_t)

    def at(self, rows: slice) -> Noised:
        """Some of the rows; `level` stays that of all pairs."""
        return replace(
            self,
            x_t=self.x_t[rows],
            target=self.target[rows],
            time=self.time[rows],
            conditions=self.conditions[rows],
            weight=None if self.weight is None else self.weight[rows],
        )


@dataclass(frozen=True)
class Seen:
    """What a network gives for all rows: errors ``[2P, T]``, and its outputs ``[2P, C, T, h, w]`` where they are
    kept.
    """

    errors: Tensor
    output: Tensor | None = None

    @property
    def by_member(self) -> tuple[Tensor, Tensor]:
        """Errors ``[P, T]`` of firsts and seconds."""
        first, second = self.errors.chunk(2)
        return first, second


def noised(
    policy: Policy,
    times: TimeSampler,
    members: tuple[Tensor, Tensor],
    conditions: Conditions,
    seeds: Sequence[int],
    strata: Strata | None = None,
    mask: Tensor | None = None,
) -> Noised:
    """Noise the P pairs of `members`, firsts and seconds; the time and the noise of a pair depend on its own seed
    alone, whatever the batch (the time, with `strata`, also on its place in it). With a `mask` ``[P, T, h, w]`` errors
    count inside it alone.
    """
    schedule, (first, second) = policy.model.schedule, members
    t = times.draw(seeds, first.device, strata)
    eps = draw_noise(first.shape[1:], seeds, first.device)
    both, masks = Conditions.cat([conditions, conditions]), None if mask is None else torch.cat([mask, mask])
    rows = rows_of(schedule, torch.cat([first, second]), torch.cat([eps, eps]), torch.cat([t, t]), both, masks)
    return Noised.of(rows, schedule.noise_level(t))


def member_mask(batch: Batch) -> Tensor | None:
    """What counts of the errors of all members, firsts before seconds, ``[2P, T, h, w]``; None where all of it does."""
    return torch.cat([batch.tensors["mask"]] * 2) if "mask" in batch.tensors else None


def see(context: Context, pairs: Noised, *, keep_output: bool = False) -> Seen:
    """All rows under the model as it is, at most `micro_batch_size` at once, in as many passes as the other processes
    of a sharded base need. Where gradients are on, their graphs add up: a caller that wants one graph at a time turns
    them off.
    """
    count = len(pairs)
    parts = shared_runs(count, context.micro_batch_size, context.processes)
    found = [see_at_once(context.policy, pairs.at(rows), keep_output=keep_output) for rows in parts]
    outputs = [one.output for one in found if one.output is not None]
    return Seen(torch.cat([one.errors for one in found])[:count], torch.cat(outputs)[:count] if outputs else None)


def see_reference(context: Context, pairs: Noised, *, keep_output: bool = False) -> Seen:
    """`see` of the reference, without graph."""
    with torch.no_grad(), context.policy.reference():
        return see(context, pairs, keep_output=keep_output)


def see_at_once(policy: Policy, pairs: Noised, *, keep_output: bool) -> Seen:
    """All rows in one pass of the model as it is."""
    output = policy.model.predict(pairs.x_t, pairs.time, pairs.conditions)
    errors = losses.frame_errors(output, pairs.target, pairs.weight)
    return Seen(errors, output if keep_output else None)
