"""OnlineVPO (arXiv 2412.15159): sample with the current policy, judge, DPO on best against worst, move the reference.

Legend: ``P`` prompts, ``n`` candidates each, latents ``[P * n, C, T, h, w]``.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit import losses
from vpo_kit.losses import PairErrors
from vpo_kit.methods.base import Context, MethodConfig, Needs, StepOutput
from vpo_kit.methods.from_rollouts import Candidates, Fresh, FromRollouts, RolloutConfig
from vpo_kit.methods.moving import FollowsReference, Moving, MovingConfig
from vpo_kit.methods.noised import noised, see_reference
from vpo_kit.methods.preference import PairConfig, motion_weights, pair_output, report
from vpo_kit.models.conditions import Conditions
from vpo_kit.pairing.choose import choose, most
from vpo_kit.pairing.settings import Choosing
from vpo_kit.sampler import derive_seed
from vpo_kit.times import Strata


class OnlineConfig(PairConfig, RolloutConfig, MovingConfig, Choosing):
    """Settings of `online`. The defaults of beta and draws are for the embedded model, found by experiment."""

    num_candidates: int = Field(4, ge=2, description="videos for each prompt (n); not in the paper")
    beta: float = Field(250.0, gt=0, description="strength of the tie to the reference (mean reduction)")
    num_draws: int = Field(2, ge=1, description="draws of (t, noise) for each pair and step; not in the paper")
    reference_update: Literal["never", "hard", "ema"] = Field("hard", description="hard is the paper's")


class Online(FollowsReference, FromRollouts):
    """Whole-clip DPO on pairs that the current policy has just made."""

    summary: ClassVar[str] = "OnlineVPO: best against worst of n fresh videos, moving reference"
    needs: ClassVar[Needs] = Needs(data=("prompts",), reward="any", validation=False)
    Config: ClassVar[type[MethodConfig]] = OnlineConfig
    config: OnlineConfig

    def __init__(self, config: OnlineConfig, context: Context) -> None:
        super().__init__(config, context)
        self._moving = Moving(context.policy)
        self._tie: Fresh | None = None

    @property
    def start(self) -> tuple[float, float] | None:
        return self.config.start

    @property
    def per_prompt(self) -> int:
        return most(self.config)

    def select(self, candidates: Candidates) -> Fresh:
        found, latents = choose(candidates.scores, self.config), candidates.latents
        self._tie = tie(latents, candidates.conditions)
        numbers = torch.tensor(candidates.positions)[:, None] * self.per_prompt + torch.arange(self.per_prompt)
        tensors = {"winners": latents[found.winners], "losers": latents[found.losers]}
        if self.config.motion_weight:
            moved = candidates.motion
            tensors["motion"] = torch.stack([moved[found.winners], moved[found.losers]], 1)
        return Fresh(
            tensors,
            numbers.flatten()[found.places.cpu()],
            candidates.conditions.repeat(self.per_prompt)[found.places],
            {**candidates.report, "skipped": found.skipped},
        )

    def update(self, fresh: Fresh, step: int) -> StepOutput:
        self._moving.follow(step, self.config)  # after the rollout: a reward that fails there must leave no trace
        draws, context, own = self.config.num_draws, self.context, len(fresh.numbers)
        total = int(context.processes.total(torch.tensor(own * draws)))
        if not context.processes.lockstep(own):
            return StepOutput(loss=torch.zeros(()), parts=())
        if not own:
            assert self._tie is not None
            fresh = self._tie
        numbers = fresh.numbers.tolist()
        seeds = [derive_seed(context.seed, "pair", step, i, d) for d in range(draws) for i in numbers]
        room = context.batch_size * self.per_prompt
        places = [d * room + i for d in range(draws) for i in numbers]
        strata = Strata(places, draws * room, derive_seed(context.seed, "strata", step))
        members = torch.cat([fresh.tensors["winners"]] * draws), torch.cat([fresh.tensors["losers"]] * draws)
        conditions = Conditions.cat([fresh.conditions] * draws)
        times = self.time_sampler(members[0].shape[1:])
        spread = strata if times.stratified else None
        pairs = noised(context.policy, times, members, conditions, seeds, spread)
        # what the others need passes of teaches nothing: not to stay where the reference is either
        config = self.config if own else self.config.model_copy(update={"anchor": 0.0})
        reference = see_reference(context, pairs, keep_output=bool(config.anchor))

        labels = torch.full((len(seeds),), 1.0 if own else 0.0, device=pairs.level.device)
        weight = None
        if "motion" in fresh.tensors:
            moved = torch.cat([fresh.tensors["motion"]] * draws)
            weight = motion_weights(moved, labels, self.config.motion_weight)

        def loss_of(errors: PairErrors) -> tuple[Tensor, dict[str, float]]:
            loss = losses.preference_loss(errors, labels, config, level=pairs.level, pair_weight=weight)
            return losses.weighted_mean(loss.value, loss.weight, torch.tensor(total)), report(errors, labels, loss)

        return pair_output(context, config, pairs, reference, labels, loss_of, (max(total, 1), own * draws))

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), **self._moving.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self._moving.load_state(state)
        if len(state.get("winners", ())):
            self._tie = tie(state["winners"], self.conditions_of(state))


def tie(latents: Tensor, conditions: Conditions) -> Fresh:
    """One pair like the first of these that teaches nothing, for a process without pairs of its own whose passes the
    others need.
    """
    nothing = torch.zeros_like(latents[:1])
    return Fresh({"winners": nothing, "losers": nothing}, torch.zeros(1, dtype=torch.long), conditions[:1], {})
