"""DiffusionNFT (arXiv 2509.16117): reinforcement learning on the forward process, without likelihoods.

What a candidate's reward says of it decides how much of it is learned as a good example and how much as a bad one: two
mixtures of the trained and a slow old policy, one towards the trained one and one away from it, are both fitted to the
candidate. Legend: ``v`` a network's output, ``x0`` the clean latent that it stands for, ``b`` the mixture, ``a`` the
advantage, ``r`` in [0, 1] the share of good; ``R`` rows (candidates times draws).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit import losses
from vpo_kit.methods.advantages import advantages, informative
from vpo_kit.methods.base import Context, MethodConfig, Needs, StepOutput, TimesConfig, runs
from vpo_kit.methods.from_rollouts import Candidates, Fresh, FromRollouts, RolloutConfig
from vpo_kit.methods.moving import Moving
from vpo_kit.methods.rows import Draws, summed

CLOSEST = 1e-5
"""The least weight of an error: below it the clean latent is met and nothing is left to fit."""


class NFTConfig(TimesConfig, RolloutConfig):
    """Settings of `nft`; the paper trains with 24 candidates of ten steps without guidance."""

    num_candidates: int = Field(8, ge=2, description="videos for each prompt (n)")
    num_draws: int = Field(1, ge=1, description="draws of (t, noise) for each candidate and step")
    mixture: float = Field(1.0, gt=0, description="how far the mixtures lie from the old policy (the paper's beta)")
    max_advantage: float = Field(5.0, gt=0, description="advantages beyond it count as it; it also scales the loss")
    anchor: float = Field(1e-4, ge=0, description="weight of the squared distance to where the run began")
    old_growth: float = Field(0.001, gt=0, le=1, description="the old policy's decay grows by it with each rollout")
    old_decay: float = Field(0.5, ge=0, lt=1, description="and at most to this; 0 keeps it at the policy")
    sampled_by: Literal["old", "policy"] = Field("old", description="whose candidates; old is the paper's")


class NFT(FromRollouts):
    """Every candidate teaches, the good ones and the bad ones."""

    summary: ClassVar[str] = "DiffusionNFT: n fresh videos, towards the good, away from the bad"
    needs: ClassVar[Needs] = Needs(data=("prompts",), reward="any", validation=False)
    Config: ClassVar[type[MethodConfig]] = NFTConfig
    config: NFTConfig

    def __init__(self, config: NFTConfig, context: Context) -> None:
        super().__init__(config, context)
        self._moving = Moving(context.policy)
        room = context.batch_size * config.num_candidates
        self._draws = Draws("nft", config.num_draws, self.time_sampler, room)

    @classmethod
    def moves_reference(cls, config: Any) -> bool:
        return True

    @property
    def per_prompt(self) -> int:
        return self.config.num_candidates

    def prepare(self, step: int) -> None:
        """The old policy follows the trained one, more slowly the longer the run lasts."""
        rollout = step // self.updates_per_batch
        self._moving.move(step, min(self.config.old_growth * (rollout - 1), self.config.old_decay))

    def sampling(self) -> AbstractContextManager[None]:
        return self.context.policy.reference() if self.config.sampled_by == "old" else nullcontext()

    def select(self, candidates: Candidates) -> Fresh:
        n, most = self.config.num_candidates, self.config.max_advantage
        found = advantages(candidates.scores)
        good = (found / (2 * most) + 0.5).clamp(0, 1).flatten()
        numbers = (torch.tensor(candidates.positions)[:, None] * n + torch.arange(n)).flatten()
        report = {**candidates.report, "informative": informative(candidates.scores)}
        return Fresh({"x": candidates.latents, "good": good}, numbers, candidates.conditions.repeat(n), report)

    def update(self, fresh: Fresh, step: int) -> StepOutput:
        context, config = self.context, self.config
        rows = self._draws.rows(context, step, fresh.tensors["x"], fresh.conditions, fresh.numbers.tolist())
        good = torch.cat([fresh.tensors["good"]] * config.num_draws)
        total, policy, model = self._draws.room * config.num_draws, context.policy, context.policy.model

        def part(chosen: slice) -> tuple[Tensor, dict[str, Tensor]]:
            some = rows[chosen]
            with torch.no_grad(), policy.reference():
                old = model.predict(some.x_t, some.time, some.conditions)
            output = model.predict(some.x_t, some.time, some.conditions)
            mixed = [(1 - sign * config.mixture) * old + sign * config.mixture * output for sign in (1, -1)]
            errors = [weighed(model.schedule.to_clean(some.x_t, v, some.t), some.x) for v in mixed]
            loss = nft_loss(errors[0], errors[1], good[chosen], config)
            found = {"old_distance": losses.output_distance(output, old).detach() / old.pow(2).mean((1, 2, 3, 4))}
            if config.anchor:
                with torch.no_grad(), policy.beginning():
                    first = model.predict(some.x_t, some.time, some.conditions)
                distance = losses.output_distance(output, first)
                loss, found["anchor"] = loss + config.anchor * distance, distance.detach()
            return loss.sum() / total, found

        return summed(runs(len(rows), context.micro_batch_size), part)

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), **self._moving.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self._moving.load_state(state)


def weighed(found: Tensor, x: Tensor) -> Tensor:
    """Mean squared error of clean latents over their mean absolute one, which takes no gradient, ``[R]``."""
    apart = found - x
    return apart.pow(2).mean((1, 2, 3, 4)) / apart.detach().abs().mean((1, 2, 3, 4)).clamp_min(CLOSEST)


def nft_loss(positive: Tensor, negative: Tensor, good: Tensor, config: NFTConfig) -> Tensor:
    """``(a_max / b) [r e+ + (1 - r) e-]`` ``[R]`` from the weighed errors of both mixtures."""
    return config.max_advantage / config.mixture * (good * positive + (1 - good) * negative)
