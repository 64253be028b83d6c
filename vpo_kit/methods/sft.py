"""Supervised fine-tuning: the model's own training loss on real clips, the first of DenseDPO's baselines.

Legend: ``B`` clips, latents ``[B, C, T, h, w]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit import losses
from vpo_kit.methods.base import (
    HELD_OUT_DRAWS,
    Batch,
    Method,
    MethodConfig,
    Needs,
    StepOutput,
    TimesConfig,
    runs,
    shared_runs,
)
from vpo_kit.methods.rows import Rows, rows_of
from vpo_kit.models.conditions import Conditions
from vpo_kit.pairing.records import Pair
from vpo_kit.sampler import derive_seed, draw_noise
from vpo_kit.times import Strata


class SFTConfig(TimesConfig):
    """Settings of `sft`."""

    num_draws: int = Field(1, ge=1, description="draws of (t, noise) for each clip and step")
    caption_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of draws that see the negative prompt instead of the caption"
    )


class SFT(Method):
    """Real clips of ``--videos``; with ``--pairs`` the real clips that guided pairs came from, or else the winners."""

    summary: ClassVar[str] = "supervised fine-tuning on clips, or a pair set's sources or winners"
    needs: ClassVar[Needs] = Needs(data=("videos", "pairs"))
    Config: ClassVar[type[MethodConfig]] = SFTConfig
    config: SFTConfig

    @classmethod
    def keeps(cls, config: Any, pair: Pair) -> bool:
        return pair.has_clip

    def step(self, batch: Batch) -> StepOutput:
        context, draws = self.context, range(self.config.num_draws)
        keys = [(position, d) for d in draws for position in batch.positions]
        seeds = [derive_seed(context.seed, "sft", batch.step, *key) for key in keys]
        total = context.batch_size * self.config.num_draws
        places = [d * context.batch_size + position for position, d in keys]
        strata = Strata(places, total, derive_seed(context.seed, "strata", batch.step))
        spread = strata if self.time_sampler().stratified else None
        clips = self._noised(batch, seeds, spread, self.config.caption_dropout)
        rows = runs(len(seeds), context.micro_batch_size)
        return StepOutput(loss=None, parts=(self._errors(clips, part).sum() / total for part in rows))

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The loss on held-out clips, at the same times and noises every time."""
        context, sums = self.context, torch.zeros(2, dtype=torch.float64)
        for batch in batches:
            keys = [(index, d) for d in range(HELD_OUT_DRAWS) for index in batch.indices]
            strata = Strata([d for _, d in keys], HELD_OUT_DRAWS, derive_seed(context.seed, "held out", "strata"))
            clips = self._noised(batch, [derive_seed(context.seed, "held out", *key) for key in keys], strata)
            parts = shared_runs(len(keys), context.micro_batch_size, context.processes)
            errors = torch.cat([self._errors(clips, rows) for rows in parts])[: len(keys)]
            if not batch.filler:
                sums += torch.tensor([float(errors.sum()), len(keys)], dtype=torch.float64)
        value, count = context.processes.total(sums).tolist()
        return {"heldout_loss": value / count} if count else {}

    def _noised(self, batch: Batch, seeds: Sequence[int], strata: Strata | None, dropout: float = 0.0) -> Rows:
        """The batch's clips once for every ``len(seeds) / B`` draws."""
        model, draws = self.context.policy.model, len(seeds) // len(batch.indices)
        x, schedule = torch.cat([batch.tensors["clip"]] * draws), model.schedule
        t = self.time_sampler(x.shape[1:]).draw(seeds, x.device, strata)
        eps = draw_noise(x.shape[1:], seeds, x.device)
        conditions = Conditions.cat([batch.conditions] * draws)
        for i, seed in enumerate(seeds if dropout else ()):
            generator = torch.Generator().manual_seed(derive_seed(seed, "dropout"))
            if float(torch.rand((), generator=generator)) < dropout:
                conditions = conditions.replaced(i, self.context.negative)
        return rows_of(schedule, x, eps, t, conditions)

    def _errors(self, clips: Rows, rows: slice) -> Tensor:
        """The mean squared error of some rows, ``[n]``."""
        some = clips[rows]
        output = self.context.policy.model.predict(some.x_t, some.time, some.conditions)
        return losses.frame_errors(output, some.target, some.weight).mean(1)
