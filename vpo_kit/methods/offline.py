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
from vpo_kit.methods.preference import (
    Noised,
    PairConfig,
    errors_of,
    noised,
    reference_errors,
    report,
    step_output,
)
from vpo_kit.models.base import Conditions
from vpo_kit.sampler import derive_seed


class OfflineConfig(PairConfig):
    """Settings of the offline pair methods."""

    fixed_draws: int = Field(
        0, ge=0, description="so many fixed draws for each pair, whose reference errors are kept; 0 draws afresh"
    )

    @model_validator(mode="after")
    def _enough_draws(self) -> OfflineConfig:
        if self.fixed_draws and self.fixed_draws < self.num_draws:
            raise ValueError(f"fixed_draws must be 0 or at least num_draws ({self.num_draws})")
        return self


class OfflinePairs(Method):
    """DPO on a pair set. A child gives `labels` and, where it is not the whole clip, `granularity`."""

    config: OfflineConfig
    granularity: ClassVar[Granularity] = "clip"

    def __init__(self, config: OfflineConfig, context: Context) -> None:
        super().__init__(config, context)
        self._kept: dict[tuple[int, int], Tensor] = {}
        self._held_out: dict[tuple[int, int], Tensor] = {}

    @abstractmethod
    def labels(self, batch: Batch) -> Tensor:
        """``[P]`` or ``[P, T]``: +1 where the first member is better, -1, or 0."""

    def pair_weight(self, batch: Batch) -> Tensor | None:
        """``[P]``, or None for equal weights."""
        return None

    def step(self, batch: Batch) -> StepOutput:
        config, seed = self.config, self.context.seed
        draws = range(config.num_draws)
        if config.fixed_draws:
            numbers = [(visit * config.num_draws + d) % config.fixed_draws for d in draws for visit in batch.visits]
            keys = list(zip(list(batch.indices) * config.num_draws, numbers, strict=True))
            pairs = self._noised(batch, [derive_seed(seed, "fixed", *key) for key in keys])
            reference = self._remembered(pairs, keys, self._kept)
        else:
            seeds = [derive_seed(seed, "pair", batch.step, position, d) for d in draws for position in batch.positions]
            pairs = self._noised(batch, seeds)
            reference = reference_errors(self.context.policy, pairs)
        return step_output(
            self.context.policy,
            pairs,
            reference,
            lambda errors: self._loss(errors, batch, pairs, config.num_draws),
            self.context.processes,
            low_memory=config.low_memory,
        )

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Loss and preference accuracy on held-out pairs, each at the same four times and noises every time."""
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in batches:
            keys = [(index, d) for d in range(HELD_OUT_DRAWS) for index in batch.indices]
            pairs = self._noised(batch, [derive_seed(self.context.seed, "held out", *key) for key in keys])
            reference = self._remembered(pairs, keys, self._held_out)
            errors = PairErrors(*errors_of(self.context.policy, pairs), *reference)
            found = self._preference(errors, batch, pairs, HELD_OUT_DRAWS)
            counted = (found.weight > 0) & (not batch.filler)
            value, right = (found.value * counted).sum(), ((found.logit > 0) & counted).sum()
            sums += torch.stack([value.double(), right.double(), counted.sum().double()]).cpu()
        loss, right, count = self.context.processes.total(sums).tolist()
        return {"heldout_loss": loss / count, "heldout_accuracy": right / count} if count else {}

    def state(self) -> dict[str, Tensor]:
        """Reference errors that are kept: the same to the last bit only if they were made in the same batch."""
        everyone = self.context.processes.gather([{key: value.cpu() for key, value in self._kept.items()}])
        return {f"{i}.{n}": value for known in everyone for (i, n), value in known.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._kept = {(int(i), int(n)): value for (i, _, n), value in ((k.partition("."), v) for k, v in state.items())}

    def _noised(self, batch: Batch, seeds: Sequence[int]) -> Noised:
        draws = len(seeds) // len(batch.indices)
        first, second = (torch.cat([batch.tensors[name]] * draws) for name in ("first", "second"))
        return noised(self.context.policy, first, second, Conditions.cat([batch.conditions] * draws), seeds)

    def _remembered(
        self, pairs: Noised, keys: Sequence[tuple[int, int]], known: dict[tuple[int, int], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Reference errors by (item, draw), taken once: the reference of these methods never moves."""
        if self.context.processes.lockstep(int(any(key not in known for key in keys))):
            found = torch.stack(reference_errors(self.context.policy, pairs), 1)
            known.update({key: found[i] for i, key in enumerate(keys) if key not in known})
        first, second = torch.stack([known[key] for key in keys]).unbind(1)
        return first, second

    def _preference(self, errors: PairErrors, batch: Batch, pairs: Noised, draws: int) -> PreferenceLoss:
        weight = self.pair_weight(batch)
        return losses.preference_loss(
            errors,
            torch.cat([self.labels(batch)] * draws),
            self.config,
            granularity=self.granularity,
            t=pairs.t,
            pair_weight=None if weight is None else torch.cat([weight] * draws),
        )

    def _loss(self, errors: PairErrors, batch: Batch, pairs: Noised, draws: int) -> tuple[Tensor, dict[str, float]]:
        loss = self._preference(errors, batch, pairs, draws)
        total = self.context.processes.total((loss.weight > 0).sum())
        labels = torch.cat([self.labels(batch)] * draws)
        return losses.weighted_mean(loss.value, loss.weight, total), report(errors, labels, loss)
