"""Reward-weighted regression (Lee et al., arXiv 2302.12192; on flows VideoAlign, arXiv 2501.13918): the model's own
training loss on scored videos, with weights ``exp(r / tau)`` whose mean over a batch is 1.

The videos are fresh ones, scored by the run's reward, or clips that people have rated: then their ratings are the
reward, and nothing is sampled.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit import losses
from vpo_kit.methods.advantages import advantages, shares
from vpo_kit.methods.base import Batch, Context, MethodConfig, Needs, StepOutput, TimesConfig, runs
from vpo_kit.methods.from_rollouts import Candidates, Fresh, FromRollouts, RolloutConfig
from vpo_kit.methods.rows import Draws, summed


class RWRConfig(TimesConfig, RolloutConfig):
    """Settings of `rwr`."""

    num_candidates: int = Field(8, ge=2, description="videos for each prompt (n)")
    num_draws: int = Field(1, ge=1, description="draws of (t, noise) for each video and step")
    temperature: float = Field(1.0, gt=0, description="tau: the lower it is, the more the best videos count")
    of: Literal["advantage", "reward"] = Field(
        "advantage",
        description="of what the weights are: of a video's standing among those of its prompt, or of its "
        "reward as it is (the paper's), where prompts that are easy outweigh the others",
    )


class RWR(FromRollouts):
    """Supervised fine-tuning on the model's own videos or on rated ones, the better ones with more weight."""

    summary: ClassVar[str] = "reward-weighted regression: fine-tuning on n fresh or rated videos"
    needs: ClassVar[Needs] = Needs(data=("prompts", "videos"), reward="any", validation=False, ratings=True)
    Config: ClassVar[type[MethodConfig]] = RWRConfig
    config: RWRConfig

    def __init__(self, config: RWRConfig, context: Context) -> None:
        super().__init__(config, context)
        times, size = self.time_sampler, context.batch_size
        self._draws = Draws("rwr", config.num_draws, times, size * config.num_candidates)
        self._rated = Draws("rwr", config.num_draws, times, size)

    @property
    def per_prompt(self) -> int:
        return self.config.num_candidates

    def step(self, batch: Batch) -> StepOutput:
        if "rating" not in batch.tensors:
            return super().step(batch)
        values = batch.tensors["standing" if self.config.of == "advantage" else "rating"]
        weights = shares(values, self.config.temperature, self.context.processes)
        numbers = torch.tensor(batch.positions)
        fresh = Fresh({"x": batch.tensors["clip"], "weight": weights}, numbers, batch.conditions, _spread_of(weights))
        output = self._weighed(fresh, batch.step, self._rated)
        output.report.update(fresh.report)
        return output

    def select(self, candidates: Candidates) -> Fresh:
        n = self.config.num_candidates
        values = advantages(candidates.scores) if self.config.of == "advantage" else candidates.scores
        weights = shares(values.flatten(), self.config.temperature, self.context.processes)
        numbers = (torch.tensor(candidates.positions)[:, None] * n + torch.arange(n)).flatten()
        report = {**candidates.report, **_spread_of(weights)}
        return Fresh({"x": candidates.latents, "weight": weights}, numbers, candidates.conditions.repeat(n), report)

    def update(self, fresh: Fresh, step: int) -> StepOutput:
        return self._weighed(fresh, step, self._draws)

    def _weighed(self, fresh: Fresh, step: int, draws: Draws) -> StepOutput:
        context = self.context
        rows = draws.rows(context, step, fresh.tensors["x"], fresh.conditions, fresh.numbers.tolist())
        weights = torch.cat([fresh.tensors["weight"]] * draws.count)
        total = draws.room * draws.count

        def part(chosen: slice) -> tuple[Tensor, dict[str, Tensor]]:
            some = rows[chosen]
            output = context.policy.model.predict(some.x_t, some.time, some.conditions)
            errors = losses.frame_errors(output, some.target, some.weight).mean(1)
            return (weights[chosen] * errors).sum() / total, {"error": errors.detach()}

        return summed(runs(len(rows), context.micro_batch_size), part)


def _spread_of(weights: Tensor) -> dict[str, float]:
    """1 where all weigh alike; as many as there are videos where a single one is copied."""
    return {"weight_square": float(weights.pow(2).mean())}
