"""MaPO (arXiv 2406.06424): pairs without a reference. The winner's own error, and a margin between both members.

Legend: ``P`` pairs, draws counted, ``T`` latent frames; both members see the same time and noise.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit import losses
from vpo_kit.methods.base import Batch, Context, Method, MethodConfig, Needs, StepOutput, TimesConfig
from vpo_kit.methods.noised import Noised, member_mask
from vpo_kit.methods.preference import step_output
from vpo_kit.methods.rows import Draws
from vpo_kit.models.conditions import Conditions
from vpo_kit.pairing.records import Pair


class MaPOConfig(TimesConfig):
    """Settings of `mapo`."""

    num_draws: int = Field(1, ge=1, description="draws of (t, noise) for each pair and step; not in the paper")
    beta: float = Field(1.0, gt=0, description="weight of the margin beside the winner's own error")
    temperature: float = Field(10.0, gt=0, description="T: how sharp the margin is")
    scale: float = Field(0.5, gt=0, description="s: of the errors inside the margin; the paper's")


class MaPO(Method):
    """Half of the passes of the other pair methods: there is no reference."""

    summary: ClassVar[str] = "MaPO: pairs without a reference, half of the passes"
    needs: ClassVar[Needs] = Needs(data=("pairs",), validation=False)
    Config: ClassVar[type[MethodConfig]] = MaPOConfig
    config: MaPOConfig

    def __init__(self, config: MaPOConfig, context: Context) -> None:
        super().__init__(config, context)
        self._draws = Draws("mapo", config.num_draws, self.time_sampler, context.batch_size)

    @classmethod
    def keeps(cls, config: Any, pair: Pair) -> bool:
        return bool(pair.label)

    def step(self, batch: Batch) -> StepOutput:
        config, context = self.config, self.context
        x = torch.cat([batch.tensors["first"], batch.tensors["second"]])
        conditions, positions = Conditions.cat([batch.conditions] * 2), list(batch.positions) * 2
        rows = self._draws.rows(context, batch.step, x, conditions, positions, member_mask(batch))
        videos = Noised.of(rows, context.policy.model.schedule.noise_level(rows.t))
        label = torch.cat([batch.tensors["label"]] * config.num_draws)
        total = context.batch_size * config.num_draws

        def loss_of(errors: Tensor) -> tuple[Tensor, dict[str, float]]:
            first, second = errors.mean(1).view(config.num_draws, 2, -1).unbind(1)
            first, second = first.flatten(), second.flatten()
            winner, loser = torch.where(label > 0, first, second), torch.where(label > 0, second, first)
            value, logit = losses.margin_loss(
                winner, loser, beta=config.beta, temperature=config.temperature, scale=config.scale
            )
            counted = label != 0
            return (value * counted).sum() / total, report(winner.detach(), loser.detach(), logit.detach(), counted)

        return step_output(context, videos, loss_of, (2 * total, int((label != 0).sum())))


def report(winner: Tensor, loser: Tensor, logit: Tensor, counted: Tensor) -> dict[str, float]:
    """The fields of preference methods that need no reference; the order here is that of the errors themselves."""
    if not counted.any():
        return {}
    lead = (loser - winner)[counted]
    return {
        "implicit_accuracy": float(((lead > 0).double() + 0.5 * (lead == 0)).mean()),
        "margin": float(logit[counted].mean()),
        "winner_error": float(winner[counted].mean()),
        "loser_error": float(loser[counted].mean()),
    }
