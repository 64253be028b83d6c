"""What the methods that learn from a finished pair set share; each of them says only which labels it reads.

Legend: ``P`` pairs, ``T`` latent frames, ``D`` draws of (t, noise) for each pair.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vpo_kit import losses
from vpo_kit.losses import Granularity, PairErrors, PreferenceLoss
from vpo_kit.methods.base import HELD_OUT_DRAWS, Batch, Context, Method, StepOutput
from vpo_kit.methods.preference import Noised, PairConfig, Seen, noised, report, see, see_reference, step_output
from vpo_kit.models.base import Conditions
from vpo_kit.sampler import derive_seed
from vpo_kit.times import Strata


class OfflineConfig(PairConfig):
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
        return self


class OfflinePairs(Method):
    """DPO on a pair set. A child gives `labels` and, where it is not the whole clip, `granularity`."""

    config: OfflineConfig
    granularity: ClassVar[Granularity] = "clip"

    def __init__(self, config: OfflineConfig, context: Context) -> None:
        super().__init__(config, context)
        self._times = self.time_sampler()
        self._kept: dict[tuple[int, int], Tensor] = {}
        self._held_out: dict[tuple[int, int], Tensor] = {}

    @property
    def start(self) -> tuple[float, float] | None:
        return self.config.start

    @abstractmethod
    def labels(self, batch: Batch) -> Tensor:
        """``[P]`` or ``[P, T]``: +1 where the first member is better, -1, or 0."""

    def pair_weight(self, batch: Batch) -> Tensor | None:
        """``[P]``, or None for equal weights."""
        return None

    def step(self, batch: Batch) -> StepOutput:
        config, context, seed = self.config, self.context, self.context.seed
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
            pairs = self._noised(batch, seeds, strata if self._times.stratified else None)
            size = context.micro_batch_size
            reference = see_reference(context.policy, pairs, size, keep_output=bool(config.anchor))
        labels = torch.cat([self.labels(batch)] * config.num_draws)

        def loss_of(errors: PairErrors) -> tuple[Tensor, dict[str, float]]:
            loss = self._preference(errors, batch, pairs, config.num_draws)
            kept = context.processes.total((loss.weight > 0).sum())
            return losses.weighted_mean(loss.value, loss.weight, kept), report(errors, labels, loss)

        return step_output(context, config, pairs, reference, loss_of, (total, int((labels != 0).sum())))

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Loss and preference accuracy on held-out pairs, each at the same four times and noises every time."""
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in batches:
            keys = [(index, d) for d in range(HELD_OUT_DRAWS) for index in batch.indices]
            pairs = self._fixed(batch, "held out", keys, HELD_OUT_DRAWS)
            reference = self._remembered(pairs, keys, self._held_out)
            seen = see(self.context.policy, pairs, self.context.micro_batch_size)
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
        return {f"{i}.{n}": value for known in everyone for (i, n), value in known.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._kept = {(int(i), int(n)): value for (i, _, n), value in ((k.partition("."), v) for k, v in state.items())}

    def _fixed(self, batch: Batch, purpose: str, keys: Sequence[tuple[int, int]], count: int) -> Noised:
        """The same draws whenever they are asked for, by (item, number); an item's `count` draws are spread evenly."""
        seed = self.context.seed
        strata = Strata([number for _, number in keys], count, derive_seed(seed, purpose, "strata"))
        return self._noised(batch, [derive_seed(seed, purpose, *key) for key in keys], strata)

    def _noised(self, batch: Batch, seeds: Sequence[int], strata: Strata | None) -> Noised:
        draws = len(seeds) // len(batch.indices)
        first, second = (torch.cat([batch.tensors[name]] * draws) for name in ("first", "second"))
        conditions = Conditions.cat([batch.conditions] * draws)
        return noised(self.context.policy, self._times, (first, second), conditions, seeds, strata)

    def _remembered(self, pairs: Noised, keys: Sequence[tuple[int, int]], known: dict[tuple[int, int], Tensor]) -> Seen:
        """Reference errors by (item, draw), taken once: the reference of these methods never moves."""
        if self.context.processes.lockstep(int(any(key not in known for key in keys))):
            fresh = see_reference(self.context.policy, pairs, self.context.micro_batch_size)
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
