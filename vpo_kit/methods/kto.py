"""Diffusion-KTO (arXiv 2404.04465): single videos that are good or bad, no pairs needed.

Each video's gain over the reference is held against the mean gain of the batch; a pair is read as one good and one bad
video, which see the same time and noise (ours). Legend: ``N`` videos, draws counted, ``T`` latent frames.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit import losses
from vpo_kit.methods.base import Batch, Context, MethodConfig, Needs, StepOutput
from vpo_kit.methods.moving import FollowsReference, Moving, MovingConfig
from vpo_kit.methods.noised import Noised, member_mask, see_reference
from vpo_kit.methods.preference import DrawnConfig, step_output
from vpo_kit.methods.rows import Draws
from vpo_kit.models.conditions import Conditions
from vpo_kit.pairing.records import Pair
from vpo_kit.processes import Processes


class KTOConfig(DrawnConfig, MovingConfig):
    """Settings of `kto`."""

    beta: float = Field(500.0, gt=0, description="strength of the tie to the reference (mean reduction)")
    good_weight: float = Field(1.0, gt=0, description="of the good videos together, whatever their number")
    bad_weight: float = Field(1.0, gt=0, description="of the bad videos together")
    good_above: float | None = Field(
        None,
        description="of rated --videos: above it is good, below it bad, at it neither; default: of verdicts 0.5, "
        "of ratings their mean over the set",
    )


class KTO(FollowsReference):
    """Verdicts on single videos, or pairs read as two."""

    summary: ClassVar[str] = "Diffusion-KTO: good or bad videos, or pairs read as one of each"
    needs: ClassVar[Needs] = Needs(data=("pairs", "videos"), ratings=True, validation=False)
    Config: ClassVar[type[MethodConfig]] = KTOConfig
    config: KTOConfig

    def __init__(self, config: KTOConfig, context: Context) -> None:
        super().__init__(config, context)
        self._moving = Moving(context.policy)
        self._draws = Draws("kto", config.num_draws, self.time_sampler, context.batch_size)

    @classmethod
    def keeps(cls, config: Any, pair: Pair) -> bool:
        return bool(pair.label)

    @property
    def start(self) -> tuple[float, float] | None:
        return 0.25 * (self.config.good_weight + self.config.bad_weight), 0.25

    def step(self, batch: Batch) -> StepOutput:
        config, context = self.config, self.context
        self._moving.follow(batch.step, config)
        x, sign, repeats = self._videos(batch)
        conditions = Conditions.cat([batch.conditions] * repeats)
        rows = self._draws.rows(context, batch.step, x, conditions, list(batch.positions) * repeats, member_mask(batch))
        videos = Noised.of(rows, context.policy.model.schedule.noise_level(rows.t))
        sign, keep = torch.cat([sign] * config.num_draws), bool(config.anchor)
        reference = see_reference(context, videos, keep_output=keep)
        side = side_weights(sign, config, context.processes)

        def loss_of(errors: Tensor) -> tuple[Tensor, dict[str, float]]:
            gain = (reference.errors - errors).mean(1)
            counted = context.processes.total(torch.stack([(gain.detach() * (sign != 0)).sum(), (sign != 0).sum()]))
            baseline = (counted[0] / counted[1].clamp_min(1)).clamp_min(0)
            value = losses.unpaired_loss(gain, sign > 0, baseline, config.beta)
            found = report(gain.detach(), sign, baseline, reference.errors, config.beta)
            return (side * value).sum(), found

        counts = repeats * context.batch_size * config.num_draws, int((sign != 0).sum())
        return step_output(context, videos, loss_of, counts, anchor=config.anchor, reference=reference)

    def _videos(self, batch: Batch) -> tuple[Tensor, Tensor, int]:
        """Latents ``[N, C, T, h, w]``, +1 good or -1 bad ``[N]``, and how many an item has: firsts come first."""
        if "rating" in batch.tensors:
            line = batch.tensors["middle"] if self.config.good_above is None else self.config.good_above
            return batch.tensors["clip"], (batch.tensors["rating"] - line).sign(), 1
        label = batch.tensors["label"]
        return torch.cat([batch.tensors["first"], batch.tensors["second"]]), torch.cat([label, -label]), 2

    def state(self) -> dict[str, Tensor]:
        return self._moving.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._moving.load_state(state)


def side_weights(sign: Tensor, config: KTOConfig, processes: Processes) -> Tensor:
    """Weights ``[N]`` under which the good videos of the global batch count as much as the bad ones, half each, times
    the weights of both sides; a side without videos has none.
    """
    good, bad = processes.total(torch.stack([(sign > 0).sum(), (sign < 0).sum()]).double()).tolist()
    high, low = 0.5 * config.good_weight / max(good, 1), 0.5 * config.bad_weight / max(bad, 1)
    return torch.where(sign > 0, high, low) * (sign != 0)


def report(gain: Tensor, sign: Tensor, baseline: Tensor, reference: Tensor, beta: float) -> dict[str, float]:
    """The fields of preference methods: a good video that has gained more than the mean, or a bad one that has gained
    less, is in the right order. Those of a side that is not there are left out.
    """
    good, bad, scale = sign > 0, sign < 0, float(reference.mean().clamp_min(1e-12))
    if not (good | bad).any():
        return {}
    lead = (sign * (gain - baseline))[good | bad]
    p = torch.sigmoid(beta * lead)
    found = {
        "implicit_accuracy": float(((lead > 0).double() + 0.5 * (lead == 0)).mean()),
        "margin": float(beta * lead.mean()),
        "gradient_factor": float((p * (1 - p)).mean()),
    }
    if good.any():
        found["winner_error_change"] = float(-gain[good].mean()) / scale
    if bad.any():
        found["loser_error_change"] = float(-gain[bad].mean()) / scale
    return found | {"good_share": float(good.sum() / (good | bad).sum())}
