"""What the methods that learn from a finished pair set share; each of them says only which labels it reads.

Legend: ``P`` pairs, ``T`` latent frames, ``D`` draws of (t, noise) for each pair.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vpo_kit import losses
from vpo_kit.losses import Granularity, PairErrors, PreferenceLoss
from vpo_kit.methods.base import HELD_OUT_DRAWS, Batch, Context, StepOutput
from vpo_kit.methods.moving import FollowsReference, Moving, MovingConfig
from vpo_kit.methods.noised import Noised, Seen, noised, see, see_reference
from vpo_kit.methods.preference import PairConfig, motion_weights, pair_output, report
from vpo_kit.models.conditions import Conditions
from vpo_kit.pairing.records import Pair
from vpo_kit.sampler import derive_seed
from vpo_kit.times import Strata


class OfflineConfig(PairConfig, MovingConfig):
    """Settings of the offline pair methods."""

    fixed_draws: int = Field(
        0, ge=0, description="so many fixed draws for each pair, whose reference errors are kept; 0 draws afresh"
    )

    @model_validator(mode="after")
    def _enough_draws(self) -> OfflineConfig:
        if self.fixed_draws and self.fixed_draws < self.num_draws:
            raise ValueError(f"fixed_draws must be 0 or at least num_draws ({self.num_draws})")
        if self.fixed_draws and self.anchor:
            raise ValueError("fixed_draws keeps the reference's errors, the anchor needs its outputs: leave one out")
        if self.fixed_draws and self.reference_update != "never":
            raise ValueError("fixed_draws keeps the errors of a reference that stays: leave reference_update out")
        return self


class OfflinePairs(FollowsReference):
    """DPO on a pair set. A child gives `labels` and, where it is not the whole clip, `granularity`."""

    config: OfflineConfig
    granularity: ClassVar[Granularity] = "clip"

    def __init__(self, config: OfflineConfig, context: Context) -> None:
        super().__init__(config, context)
        self._kept: dict[tuple[int, int], Tensor] = {}
        self._held_out: dict[tuple[int, int], Tensor] = {}
        self._moving = Moving(context.policy)

    @classmethod
    def keeps(cls, config: Any, pair: Pair) -> bool:
        """A pair whose clip has a winner and, where weights come from it, whose motion is known."""
        return bool(pair.label) and (not config.motion_weight or pair.motion is not None)

    @property
    def start(self) -> tuple[float, float] | None:
        return self.config.start

    @abstractmethod
    def labels(self, batch: Batch) -> Tensor:
        """``[P]`` or ``[P, T]``: +1 where the first member is better, -1, or 0."""

    def pair_weight(self, batch: Batch) -> Tensor | None:
        """``[P]``, or None for equal weights: by motion, where the settings ask for it, times those of a set's votes,
        where the run does.
        """
        votes = batch.tensors.get("weight")
        if not self.config.motion_weight:
            return votes
        moved = motion_weights(batch.tensors["motion"], batch.tensors["label"], self.config.motion_weight)
        return moved if votes is None else moved * votes

    def step(self, batch: Batch) -> StepOutput:
        config, context, seed = self.config, self.context, self.context.seed
        self._moving.follow(batch.step, config)
        draws, total = range(config.num_draws), config.num_draws * context.batch_size
        if config.fixed_draws:
            numbers = [(visit * config.num_draws + d) % config.fixed_draws for d in draws for visit in batch.visits]
            keys = list(zip(list(batch.indices) * config.num_draws, numbers, strict=True))
            pairs = self._fixed(batch, "fixed", keys, config.fixed_draws)
            reference = self._remembered(pairs, keys, self._kept)
        else:
            places = [d * context.batch_size + position for d in draws for position in batch.positions]
            seeds = [derive_seed(seed, "pair", batch.step, position, d) for d in draws for position in batch.positions]
            strata = Strata(places, total, derive_seed(seed, "strata", batch.step))
            pairs = self._noised(batch, seeds, strata if self.time_sampler().stratified else None)
            reference = see_reference(context, pairs, keep_output=bool(config.anchor))
        labels = torch.cat([self.labels(batch)] * config.num_draws)

        def loss_of(errors: PairErrors) -> tuple[Tensor, dict[str, float]]:
            loss = self._preference(errors, batch, pairs, config.num_draws)
            kept = context.processes.total((loss.weight > 0).sum())
            return losses.weighted_mean(loss.value, loss.weight, kept), report(errors, labels, loss)

        return pair_output(context, config, pairs, reference, labels, loss_of, (total, int((labels != 0).sum())))

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Loss and preference accuracy on held-out pairs, each at the same four times and noises every time."""
        config = self.config
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in batches:
            keys = [(index, d) for d in range(HELD_OUT_DRAWS) for index in batch.indices]
            pairs = self._fixed(batch, "held out", keys, HELD_OUT_DRAWS)
            known = self._held_out if config.reference_update == "never" else {}
            reference = self._remembered(pairs, keys, known)
            seen = see(self.context, pairs)
            errors = PairErrors(*seen.by_member, *reference.by_member)
            found = self._preference(errors, batch, pairs, HELD_OUT_DRAWS)
            counted = (found.weight > 0) & (not batch.filler)
            right = ((found.logit > 0).double() + 0.5 * (found.logit == 0)) * counted
            sums += torch.stack([(found.value * counted).sum().double(), right.sum(), counted.sum().double()]).cpu()
        loss, right_sum, count = self.context.processes.total(sums).tolist()
        return {"heldout_loss": loss / count, "heldout_accuracy": right_sum / count} if count else {}

    def state(self) -> dict[str, Tensor]:
        """Reference errors that are kept: the same to the last bit only if they were made in the same batch."""
        everyone = self.context.processes.gather([{key: value.cpu() for key, value in self._kept.items()}])
        kept = {f"{i}.{n}": value for known in everyone for (i, n), value in known.items()}
        return {**kept, **self._moving.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._moving.load_state(state)
        keys = {key: key.partition(".") for key in state if "." in key}
        self._kept = {(int(i), int(n)): state[key] for key, (i, _, n) in keys.items()}

    def _fixed(self, batch: Batch, purpose: str, keys: Sequence[tuple[int, int]], count: int) -> Noised:
        """The same draws whenever they are asked for, by (item, number); an item's `count` draws are spread evenly."""
        seed = self.context.seed
        strata = Strata([number for _, number in keys], count, derive_seed(seed, purpose, "strata"))
        return self._noised(batch, [derive_seed(seed, purpose, *key) for key in keys], strata)

    def _noised(self, batch: Batch, seeds: Sequence[int], strata: Strata | None) -> Noised:
        draws = len(seeds) // len(batch.indices)
        first, second = (torch.cat([batch.tensors[name]] * draws) for name in ("first", "second"))
        conditions = Conditions.cat([batch.conditions] * draws)
        mask = torch.cat([batch.tensors["mask"]] * draws) if "mask" in batch.tensors else None
        return noised(self.context.policy, self.time_sampler(), (first, second), conditions, seeds, strata, mask)

    def _remembered(self, pairs: Noised, keys: Sequence[tuple[int, int]], known: dict[tuple[int, int], Tensor]) -> Seen:
        """Reference errors by (item, draw), those that are not `known` yet taken now: for a reference that stays."""
        if self.context.processes.lockstep(int(any(key not in known for key in keys))):
            fresh = see_reference(self.context, pairs)
            found = torch.stack(fresh.by_member, 1)
            known.update({key: found[i] for i, key in enumerate(keys) if key not in known})
        return Seen(torch.cat(torch.stack([known[key] for key in keys]).unbind(1)))

    def _preference(self, errors: PairErrors, batch: Batch, pairs: Noised, draws: int) -> PreferenceLoss:
        weight = self.pair_weight(batch)
        return losses.preference_loss(
            errors,
            torch.cat([self.labels(batch)] * draws),
            self.config,
            granularity=self.granularity,
            level=pairs.level,
            pair_weight=None if weight is None else torch.cat([weight] * draws),
        )
