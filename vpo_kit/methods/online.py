"""OnlineVPO (arXiv 2412.15159): sample with the current policy, judge, DPO on best against worst, move the reference.

Legend: ``P`` prompts, ``n`` candidates each, latents ``[P * n, C, T, h, w]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vpo_kit import losses
from vpo_kit.losses import PreferenceConfig
from vpo_kit.methods.base import Batch, Context, Method, MethodConfig, Needs, StepOutput
from vpo_kit.methods.preference import pair_errors, report
from vpo_kit.models.base import Conditions
from vpo_kit.sampler import Guidance, derive_seed, draw_noise, sample
from vpo_kit.video import motion


class OnlineConfig(MethodConfig, PreferenceConfig):
    """Settings of `online`. The defaults of beta and draws are for the embedded model, found by experiment."""

    num_candidates: int = Field(4, ge=2, description="videos for each prompt (n); not in the paper")
    num_pairs: int = Field(
        1, ge=1, description="best against worst, second best against second worst, ... of a prompt; 1 is the paper's"
    )
    rollout_steps: int | None = Field(
        None, ge=1, description="denoising steps of a rollout; default: those of sampling"
    )
    min_margin: float = Field(
        0.0, ge=0, description="prompts whose best and worst are closer are skipped; not in the paper"
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
    """Pairs for one or more optimiser steps: `labels` are +1, or 0 where the margin is too small."""

    winners: Tensor
    losers: Tensor
    labels: Tensor
    conditions: Conditions
    report: dict[str, float]


class Online(Method):
    """Whole-clip DPO on pairs that the current policy has just made."""

    summary: ClassVar[str] = "OnlineVPO: best against worst of n fresh videos, DPO, moving reference"
    needs: ClassVar[Needs] = Needs(prompts=True, reference=True, reward="any")
    Config: ClassVar[type[MethodConfig]] = OnlineConfig
    config: OnlineConfig

    def __init__(self, config: OnlineConfig, context: Context) -> None:
        super().__init__(config, context)
        self._rollout: Rollout | None = None

    @property
    def updates_per_batch(self) -> int:
        return self.config.updates_per_rollout

    def step(self, batch: Batch) -> StepOutput:
        self._move_reference(batch.step)
        if self._rollout is None or batch.step % self.updates_per_batch == 0:
            self._rollout = self._roll_out(batch)
        rollout, draws = self._rollout, self.config.num_draws
        labels = rollout.labels.repeat(draws)
        errors, t = pair_errors(
            self.context.policy,
            rollout.winners.repeat(draws, 1, 1, 1, 1),
            rollout.losers.repeat(draws, 1, 1, 1, 1),
            Conditions.cat([rollout.conditions] * draws),
            torch.Generator().manual_seed(derive_seed(self.context.seed, "pair", batch.step)),
        )
        loss = losses.preference_loss(errors, labels, self.config, t=t)
        value = losses.weighted_mean(loss.value, loss.weight)
        if self.config.sft_weight:
            value = value + self.config.sft_weight * errors.first.mean()
        return StepOutput(value, {**report(errors, labels, loss), **rollout.report})

    def _move_reference(self, step: int) -> None:
        kind = self.config.reference_update
        if kind == "ema" and step > 0:
            self.context.policy.refresh_reference(self.config.reference_decay)
        elif kind == "hard" and step > 0 and step % self.config.reference_every == 0:
            self.context.policy.refresh_reference(0.0)

    @torch.no_grad()
    def _roll_out(self, batch: Batch) -> Rollout:
        """Sample n candidates for each prompt with the current policy and pair the best with the worst."""
        context, n = self.context, self.config.num_candidates
        prompts = [prompt for prompt in batch.prompts for _ in range(n)]
        latents, video = self._sample(batch.conditions.repeat(n), batch.step)
        assert context.reward is not None
        scored = context.reward(video, prompts, fps=context.sampling.fps, group=n)
        scores = scored.score.view(-1, n)
        ranked, order = scores.sort(dim=1, descending=True, stable=True)
        order = order + torch.arange(len(scores), device=scores.device)[:, None] * n
        k = self.config.num_pairs
        best, worst = order[:, :k].flatten(), order.flip(1)[:, :k].flatten()
        margin = (ranked[:, :k] - ranked.flip(1)[:, :k]).flatten()
        # a margin of zero is a tie whatever the threshold
        labels = (margin > self.config.min_margin).to(latents.dtype)
        raw = {f"reward/{name}": float(value.mean()) for name, value in scored.components.items()}
        summary = {
            "reward_mean": float(scores.mean()),
            "reward_std": float(scores.std(1).mean()),
            "reward_margin": float((ranked[:, 0] - ranked[:, -1]).mean()),
            "skipped": float((labels == 0).float().mean()),
            "motion": float(motion(video).mean()),
        }
        kept = labels.nonzero().flatten() if labels.any() else torch.arange(len(labels), device=labels.device)
        return Rollout(
            latents[best][kept],
            latents[worst][kept],
            labels[kept],
            batch.conditions.repeat(k)[kept],
            {**summary, **(raw if len(raw) > 1 else {})},
        )

    def _sample(self, conditions: Conditions, step: int) -> tuple[Tensor, Tensor]:
        """Latents and video of all candidates, at most `batch_size` at once."""
        context, settings = self.context, self.context.sampling
        model = context.policy.model
        shape = model.latent_shape(settings.frames, settings.height, settings.width)
        guidance = Guidance(settings.guidance, context.negative)
        steps = self.config.rollout_steps or settings.steps
        latents, videos = [], []
        for start in range(0, len(conditions), context.batch_size):
            rows = range(start, min(start + context.batch_size, len(conditions)))
            noise = draw_noise(shape, [derive_seed(context.seed, "rollout", step, i) for i in rows], model.device)
            part = conditions[slice(rows.start, rows.stop)]
            latents.append(sample(model, part, noise=noise, steps=steps, guidance=guidance))
            videos.append(model.decode(latents[-1]))
        return torch.cat(latents), torch.cat(videos)

    def state(self) -> dict[str, Tensor]:
        """The pairs in use, where the next step goes on with them."""
        if self._rollout is None:
            return {}
        conditions = {f"conditions.{k}": v for k, v in self._rollout.conditions.tensors.items()}
        numbers = {f"report.{k}": torch.tensor(v, dtype=torch.float64) for k, v in self._rollout.report.items()}
        kept = {"winners": self._rollout.winners, "losers": self._rollout.losers, "labels": self._rollout.labels}
        return {**kept, **conditions, **numbers}

    def load_state(self, state: dict[str, Tensor]) -> None:
        if not state:
            return

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

        self._rollout = Rollout(
            state["winners"],
            state["losers"],
            state["labels"],
            Conditions(part("conditions.")),
            {k: float(v) for k, v in part("report.").items()},
        )
