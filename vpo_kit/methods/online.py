"""OnlineVPO (arXiv 2412.15159): sample with the current policy, judge, DPO on best against worst, move the reference.

Legend: ``P`` prompts, ``n`` candidates each, latents ``[P * n, C, T, h, w]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vpo_kit import losses
from vpo_kit.config import Run
from vpo_kit.losses import PairErrors
from vpo_kit.methods.base import Batch, Context, Method, MethodConfig, Needs, StepOutput
from vpo_kit.methods.preference import PairConfig, noised, report, see_reference, step_output
from vpo_kit.models.base import Conditions
from vpo_kit.sampler import derive_seed, draw_noise, sample
from vpo_kit.times import Strata
from vpo_kit.video import motion


class OnlineConfig(PairConfig):
    """Settings of `online`. The defaults of beta and draws are for the embedded model, found by experiment."""

    num_candidates: int = Field(4, ge=2, description="videos for each prompt (n); not in the paper")
    num_pairs: int = Field(
        1, ge=1, description="best against worst, second best against second worst, ... of a prompt; 1 is the paper's"
    )
    rollout_steps: int | None = Field(
        None, ge=1, description="denoising steps of a rollout; default: those of sampling"
    )
    min_margin: float = Field(
        0.0, ge=0, description="pairs whose scores are closer are skipped, and equal ones always; not in the paper"
    )
    beta: float = Field(250.0, gt=0, description="strength of the tie to the reference (mean reduction)")
    updates_per_rollout: int = Field(2, ge=1, description="optimiser steps for each fresh batch; not in the paper")
    num_draws: int = Field(2, ge=1, description="draws of (t, noise) for each pair and step; not in the paper")
    reference_update: Literal["never", "hard", "ema"] = Field("hard", description="hard is the paper's")
    reference_every: int = Field(200, ge=1, description="optimiser steps between hard copies (K)")
    reference_decay: float = Field(0.99, gt=0, lt=1, description="per step, for ema")

    @model_validator(mode="after")
    def _enough_candidates(self) -> OnlineConfig:
        if 2 * self.num_pairs > self.num_candidates:
            raise ValueError(f"{self.num_pairs} pairs of a prompt need at least {2 * self.num_pairs} candidates")
        return self


@dataclass(frozen=True)
class Rollout:
    """This process's pairs for one or more optimiser steps; `numbers` ``[P]`` are their places in the global batch."""

    winners: Tensor
    losers: Tensor
    numbers: Tensor
    conditions: Conditions
    report: dict[str, float]

    def tensors(self) -> dict[str, Tensor]:
        conditions = {f"conditions.{k}": v for k, v in self.conditions.tensors.items()}
        own = {"winners": self.winners, "losers": self.losers, "numbers": self.numbers, **conditions}
        return {key: value.cpu() for key, value in own.items()}


class Online(Method):
    """Whole-clip DPO on pairs that the current policy has just made."""

    summary: ClassVar[str] = "OnlineVPO: best against worst of n fresh videos, DPO, moving reference"
    needs: ClassVar[Needs] = Needs(data=("prompts",), reference=True, reward="any", validation=False)
    Config: ClassVar[type[MethodConfig]] = OnlineConfig
    config: OnlineConfig

    def __init__(self, config: OnlineConfig, context: Context) -> None:
        super().__init__(config, context)
        self._times = self.time_sampler()
        self._rollout: Rollout | None = None
        self._moved = -1
        """The step before which the reference was last moved: when a failed step comes again, it stays."""

    @classmethod
    def idle(cls, config: Any, run: Run) -> list[str]:
        if config.reference_update == "hard" and config.reference_every >= run.steps:
            return [
                f"method.reference_every {config.reference_every}: the reference does not move in {run.steps} steps "
                "(method.reference_update=never says so)"
            ]
        return []

    @property
    def start(self) -> tuple[float, float] | None:
        return self.config.start

    @property
    def updates_per_batch(self) -> int:
        return self.config.updates_per_rollout

    def step(self, batch: Batch) -> StepOutput:
        if self._rollout is None or batch.step % self.updates_per_batch == 0:
            self._rollout = self._roll_out(batch)
        self._move_reference(batch.step)  # after the rollout: a reward that fails there must leave no trace
        rollout, draws, context = self._rollout, self.config.num_draws, self.context
        own, summary = len(rollout.numbers), rollout.report
        total = int(context.processes.total(torch.tensor(own * draws)))
        if not context.processes.lockstep(own):
            return StepOutput(torch.zeros(()), summary, parts=())
        if not own:
            rollout = self._tie()
        numbers = rollout.numbers.tolist()
        seeds = [derive_seed(context.seed, "pair", batch.step, i, d) for d in range(draws) for i in numbers]
        most = context.batch_size * self.config.num_pairs
        places = [d * most + i for d in range(draws) for i in numbers]
        strata = Strata(places, draws * most, derive_seed(context.seed, "strata", batch.step))
        members = torch.cat([rollout.winners] * draws), torch.cat([rollout.losers] * draws)
        conditions = Conditions.cat([rollout.conditions] * draws)
        spread = strata if self._times.stratified else None
        pairs = noised(context.policy, self._times, members, conditions, seeds, spread)
        size = context.micro_batch_size
        reference = see_reference(context.policy, pairs, size, keep_output=bool(self.config.anchor))

        def loss_of(errors: PairErrors) -> tuple[Tensor, dict[str, float]]:
            labels = torch.full((len(seeds),), 1.0 if own else 0.0, device=pairs.level.device)
            loss = losses.preference_loss(errors, labels, self.config, level=pairs.level)
            return losses.weighted_mean(loss.value, loss.weight, torch.tensor(total)), report(errors, labels, loss)

        output = step_output(context, self.config, pairs, reference, loss_of, (max(total, 1), own * draws))
        return replace(output, report={**output.report, **summary})

    def _tie(self) -> Rollout:
        """One pair that teaches nothing, for a process without pairs of its own whose passes the others need."""
        settings, model = self.context.sampling, self.context.policy.model
        shape = model.latent_shape(settings.frames, settings.height, settings.width)
        nothing = torch.zeros(1, *shape, device=model.device)
        return Rollout(nothing, nothing, torch.zeros(1, dtype=torch.long), self.context.negative, {})

    def _move_reference(self, step: int) -> None:
        kind = self.config.reference_update
        if kind == "ema" and step > self._moved and step > 0:
            self._moved = step
            self.context.policy.refresh_reference(self.config.reference_decay)
        elif kind == "hard" and step > 0 and step % self.config.reference_every == 0:
            self.context.policy.refresh_reference(0.0)

    @torch.no_grad()
    def _roll_out(self, batch: Batch) -> Rollout:
        """Sample n candidates for each prompt with the current policy and pair the best with the worst."""
        context, n = self.context, self.config.num_candidates
        prompts = [prompt for prompt in batch.prompts for _ in range(n)]
        candidates = [position * n + i for position in batch.positions for i in range(n)]
        latents, video = self._sample(batch.conditions.repeat(n), batch.step, candidates)
        assert context.reward is not None
        scored = context.reward(video, prompts, fps=context.sampling.fps, group=n)
        scores = scored.score.view(-1, n)
        ranked, order = scores.sort(dim=1, descending=True, stable=True)
        order = order + torch.arange(len(scores), device=scores.device)[:, None] * n
        k = self.config.num_pairs
        best, worst = order[:, :k].flatten(), order.flip(1)[:, :k].flatten()
        margin = (ranked[:, :k] - ranked.flip(1)[:, :k]).flatten()
        # a margin of zero is a tie whatever the threshold
        kept = ((margin >= self.config.min_margin) & (margin > 0)).nonzero().flatten()
        numbers = (torch.tensor(batch.positions)[:, None] * k + torch.arange(k)).flatten()
        raw = {f"reward/{name}": float(value.mean()) for name, value in scored.components.items()}
        summary = {
            "reward_mean": float(scores.mean()),
            "reward_std": float(scores.std(1).mean()),
            "reward_margin": float((ranked[:, 0] - ranked[:, -1]).mean()),
            "skipped": 1 - len(kept) / len(margin),
            "motion": float(motion(video).mean()),
        }
        return Rollout(
            latents[best][kept],
            latents[worst][kept],
            numbers[kept.cpu()],
            batch.conditions.repeat(k)[kept],
            {**summary, **(raw if len(raw) > 1 else {})},
        )

    def _sample(self, conditions: Conditions, step: int, candidates: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Latents and video of all candidates, given by their global numbers, at most `sampling_batch_size` at once."""
        context, settings = self.context, self.context.sampling
        model = context.policy.model
        shape = model.latent_shape(settings.frames, settings.height, settings.width)
        guidance = model.guidance(settings, context.negative)
        steps = self.config.rollout_steps or settings.steps
        latents, videos = [], []
        for start in range(0, len(conditions), context.sampling_batch_size):
            rows = slice(start, start + context.sampling_batch_size)
            seeds = [derive_seed(context.seed, "rollout", step, i) for i in candidates[rows]]
            noise, part = draw_noise(shape, seeds, model.device), conditions[rows]
            latents.append(sample(model, part, noise=noise, steps=steps, guidance=guidance))
            videos.append(model.decode(latents[-1]))
        return torch.cat(latents), torch.cat(videos)

    def state(self) -> dict[str, Tensor]:
        """The pairs in use by all processes, in the global order, where the next step goes on with them."""
        if self._rollout is None:
            return {}
        everyone = self.context.processes.gather([self._rollout.tensors()])
        order = torch.cat([part["numbers"] for part in everyone]).argsort()
        joined = {key: torch.cat([part[key] for part in everyone])[order] for key in everyone[0]}
        means = self.context.processes.mean(self._rollout.report)
        moved = {"moved": torch.tensor(self._moved)} if self._moved > 0 else {}
        return {**joined, **moved, **{f"report.{k}": torch.tensor(v, dtype=torch.float64) for k, v in means.items()}}

    def load_state(self, state: dict[str, Tensor]) -> None:
        if not state:
            return
        self._moved = int(state["moved"]) if "moved" in state else -1
        processes = self.context.processes
        position = state["numbers"].cpu() // self.config.num_pairs
        own = (position % processes.count == processes.rank).nonzero().flatten()

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

        self._rollout = Rollout(
            state["winners"][own],
            state["losers"][own],
            state["numbers"].cpu()[own],
            Conditions(part("conditions."))[own],
            {k: float(v) for k, v in part("report.").items()},
        )
