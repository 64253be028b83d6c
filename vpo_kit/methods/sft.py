"""Supervised fine-tuning: the model's own training loss on real clips, the first of DenseDPO's baselines.

Legend: ``B`` clips, latents ``[B, C, T, h, w]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit import losses
from vpo_kit.methods.base import HELD_OUT_DRAWS, Batch, Method, MethodConfig, Needs, StepOutput
from vpo_kit.models.base import Conditions
from vpo_kit.sampler import derive_seed, draw_noise, draw_times


class SFTConfig(MethodConfig):
    """Settings of `sft`."""

    num_draws: int = Field(1, ge=1, description="draws of (t, noise) for each clip and step")


class SFT(Method):
    """Real clips of ``--videos``; with ``--pairs`` the real clips that guided pairs came from, or else the winners."""

    summary: ClassVar[str] = "supervised fine-tuning on real clips, or on a pair set's sources or winners"
    needs: ClassVar[Needs] = Needs(data=("videos", "pairs"))
    Config: ClassVar[type[MethodConfig]] = SFTConfig
    config: SFTConfig

    def step(self, batch: Batch) -> StepOutput:
        draws = range(self.config.num_draws)
        seeds = [derive_seed(self.context.seed, "sft", batch.step, p, d) for d in draws for p in batch.positions]
        errors = self._errors(batch, seeds)
        total = self.context.processes.total(torch.tensor(len(errors)))
        return StepOutput(errors.sum() / total.to(errors.device))

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The loss on held-out clips, at the same times and noises every time."""
        sums = torch.zeros(2, dtype=torch.float64)
        for batch in batches:
            keys = [(index, d) for d in range(HELD_OUT_DRAWS) for index in batch.indices]
            errors = self._errors(batch, [derive_seed(self.context.seed, "held out", *key) for key in keys])
            if not batch.filler:
                sums += torch.tensor([float(errors.sum()), len(errors)], dtype=torch.float64)
        value, count = self.context.processes.total(sums).tolist()
        return {"heldout_loss": value / count} if count else {}

    def _errors(self, batch: Batch, seeds: Sequence[int]) -> Tensor:
        """The mean squared error of each clip and draw, ``[B * D]``."""
        policy, model = self.context.policy, self.context.policy.model
        draws = len(seeds) // len(batch.indices)
        x = torch.cat([batch.tensors["clip"]] * draws)
        t = draw_times(model.schedule, seeds, x.device, wanted=policy.trains)
        eps = draw_noise(x.shape[1:], seeds, x.device)
        prediction = model.predict(
            model.schedule.add_noise(x, eps, t),
            model.schedule.network_time(t),
            Conditions.cat([batch.conditions] * draws),
        )
        return losses.frame_errors(prediction, model.schedule.target(x, eps, t)).mean(1)
