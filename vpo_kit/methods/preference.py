"""What all pair methods share: turn both networks' errors into loss and report.

Legend as in `methods.noised`: ``P`` pairs, ``2P`` rows, ``T`` latent frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit import losses
from vpo_kit.losses import PairErrors, PreferenceConfig, PreferenceLoss
from vpo_kit.methods.base import Context, StepOutput, TimesConfig, runs
from vpo_kit.methods.noised import Noised, Seen, see, see_at_once

LossOf = Callable[[Tensor], tuple[Tensor, dict[str, float]]]
"""A function from errors ``[R, T]`` to this process's share of the loss, and what is reported by label."""
Hold = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, float]]]
"""A function from errors and the mean product of both members' residuals ``[P, T]`` to errors of the same values whose
gradient is held back, and what is reported of that.
"""


class DrawnConfig(TimesConfig):
    """Settings of how often each video or pair is noised, and of the anchor."""

    num_draws: int = Field(1, ge=1, description="draws of (t, noise) for each pair and step; not in the papers")
    anchor: float = Field(
        0.0, ge=0, description="weight of the squared distance of both networks' outputs; not in the papers"
    )


class PairConfig(DrawnConfig, PreferenceConfig):
    """Settings that every pair method has: those of the loss, and how its passes are made."""

    safeguard: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Diffusion-SDPO: the loser's gradient is scaled down so that outputs that are "
        "moved do not raise the winner's error, with so much to spare; default: off",
    )
    motion_weight: float = Field(
        0.0, ge=0, description="a winner that moves less than its loser counts (share of the motion)^this; 0 is off"
    )


def step_output(
    context: Context,
    pairs: Noised,
    loss_of: LossOf,
    counts: tuple[int, int],
    *,
    anchor: float = 0.0,
    reference: Seen | None = None,
    hold: Hold | None = None,
) -> StepOutput:
    """Loss and report of one step; `counts` are the rows of the global batch, and the labels here.
    An `anchor` needs the outputs of the `reference`, and `hold` rows that are pairs.

    The loss sees the networks through the errors alone, so ``dL = sum c dE`` with ``c = dL/dE`` known once the errors
    are. With a `micro_batch_size` that is smaller than the batch the errors come from a pass without graph, and each
    run of rows then gets a backward pass of its own with its ``c``: exact, and one graph at a time. The anchor is a sum
    over rows anyway.
    """
    size, (total, num_labels) = context.micro_batch_size, counts
    whole = size is None or size >= context.processes.lockstep(len(pairs))
    with torch.set_grad_enabled(whole):
        seen = see(context, pairs, keep_output=bool(anchor or hold))
    errors = seen.errors if whole else seen.errors.requires_grad_()
    report = {}
    with torch.enable_grad():
        held, held_report = hold(errors, _inner(seen, pairs)) if hold else (errors, {})
        loss, by_label = loss_of(held)
    (weights,) = (None,) if whole else torch.autograd.grad(loss, [errors], materialize_grads=True)
    if anchor:
        assert reference is not None
        scale = anchor / total
        distance = _distance(seen, reference, slice(None))
        loss = loss + scale * distance.sum()
        report["anchor"] = float(distance.detach().mean())
    by_label = {**by_label, **held_report} if by_label else by_label
    if weights is None:
        return StepOutput(loss=loss, report=report, parts=None, by_label=by_label, num_labels=num_labels)

    def part(rows: slice) -> Tensor:
        found = see_at_once(context.policy, pairs.at(rows), keep_output=bool(anchor))
        value = (weights[rows] * found.errors).sum()
        if not anchor or reference is None:
            return value
        return value + scale * _distance(found, reference, rows).sum()

    def parts() -> Iterator[Tensor]:
        own = [rows for rows in runs(len(pairs), size) if anchor or bool(weights[rows].any())]
        fillers = context.processes.lockstep(len(own)) - len(own)
        yield from map(part, own)
        for _ in range(fillers):
            yield 0 * part(slice(1))

    return StepOutput(loss=loss.detach(), report=report, parts=parts(), by_label=by_label, num_labels=num_labels)


def pair_output(
    context: Context,
    config: PairConfig,
    pairs: Noised,
    reference: Seen,
    labels: Tensor,
    loss_of: Callable[[PairErrors], tuple[Tensor, dict[str, float]]],
    counts: tuple[int, int],
) -> StepOutput:
    """`step_output` of pairs with `labels` ``[P]`` or ``[P, T]`` under both networks, with what `config` adds; `counts`
    are the pairs of the global batch (draws counted), and the labels here.
    """

    def both(errors: Tensor) -> PairErrors:
        return PairErrors(*Seen(errors).by_member, *reference.by_member)

    def hold(errors: Tensor, inner: Tensor) -> tuple[Tensor, dict[str, float]]:
        found, factor = losses.safeguard(both(errors), inner, labels, config.safeguard or 0.0)
        return torch.cat([found.first, found.second]), {"safeguard": float(factor[labels != 0].mean())}

    return step_output(
        context,
        pairs,
        lambda errors: loss_of(both(errors)),
        (2 * counts[0], counts[1]),
        anchor=config.anchor,
        reference=reference,
        hold=None if config.safeguard is None else hold,
    )


def motion_weights(moved: Tensor, labels: Tensor, power: float) -> Tensor:
    """``min(1, motion_w / motion_l)^power`` ``[P]``: a still winner teaches stillness, whatever else is good about it.

    `moved` ``[P, 2]`` is the motion of firsts and seconds, `labels` ``[P]``; McDPO's idea, in a form of our own.
    """
    winner = torch.where(labels > 0, moved[:, 0], moved[:, 1])
    loser = torch.where(labels > 0, moved[:, 1], moved[:, 0])
    return (winner / loser.clamp_min(1e-9)).clamp(max=1).pow(power)


def report(errors: PairErrors, labels: Tensor, loss: PreferenceLoss) -> dict[str, float]:
    """The fields that every preference method logs; `labels` ``[P]`` or ``[P, T]``, ties left out. Where no label has a
    weight, what is a mean over those that have is not there.

    A change is relative to the reference's error: +0.01 is one percent worse than the reference. A pair whose members
    changed alike (as in the first step, where policy and reference are the same) counts as half right.
    """
    kept = labels != 0
    if not kept.any():
        return {}
    first = (errors.first - errors.first_ref).detach()
    second = (errors.second - errors.second_ref).detach()
    if labels.ndim == 1:
        first, second = first.mean(1), second.mean(1)
    winner = torch.where(labels > 0, first, second)[kept]
    loser = torch.where(labels > 0, second, first)[kept]
    scale = errors.first_ref.mean().clamp_min(1e-12)
    right = (winner < loser).double() + 0.5 * (winner == loser)
    found = {
        "implicit_accuracy": float(right.mean()),
        "winner_error_change": float(winner.mean() / scale),
        "loser_error_change": float(loser.mean() / scale),
    }
    counted = loss.weight > 0
    if counted.any():
        found["margin"] = float(loss.logit.detach()[counted].mean())
        found["gradient_factor"] = float(loss.slope[counted].mean())
    return found


def _distance(seen: Seen, reference: Seen, rows: slice) -> Tensor:
    """Mean squared distance of both networks' outputs ``[n]``, for the `rows` of the reference."""
    assert seen.output is not None
    assert reference.output is not None
    return losses.output_distance(seen.output, reference.output[rows])


def _inner(seen: Seen, pairs: Noised) -> Tensor:
    """The mean product of both members' residuals, ``[P, T]``, without gradient."""
    assert seen.output is not None
    first, second = (seen.output.detach().float() - pairs.target.float()).chunk(2)
    product = first * second
    if pairs.weight is not None:
        product = product * pairs.weight.chunk(2)[0][:, None]
    return product.mean((1, 3, 4))
