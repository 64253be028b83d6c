"""A preference method: DPO in which a pair counts as much as the judge is sure of it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit.methods.base import Batch, MethodConfig, Needs
from vpo_kit.methods.offline import OfflineConfig, OfflinePairs
from vpo_kit.pairing.records import Pair


class SureConfig(OfflineConfig):
    """Settings of `sure`, and all those of the methods that learn from a pair set."""

    doubt: float = Field(1.0, gt=0, description="difference of two clips' scores at which the judge is fairly sure")


class Sure(OfflinePairs):
    """`labels` says what is preferred, `pair_weight` how much; loss, reference, draws, validation are the base's."""

    summary: ClassVar[str] = "DPO, each pair by how sure the judge is"
    needs: ClassVar[Needs] = Needs(data=("pairs",))
    Config: ClassVar[type[MethodConfig]] = SureConfig
    config: SureConfig

    @classmethod
    def keeps(cls, config: Any, pair: Pair) -> bool:
        """A pair with a winner and with the scores that made it one."""
        return super().keeps(config, pair) and pair.scores is not None

    def labels(self, batch: Batch) -> Tensor:
        return batch.tensors["label"]

    def pair_weight(self, batch: Batch) -> Tensor | None:
        """``[P]``: tanh of the scores' difference, over `doubt`."""
        assert self.context.scores is not None
        label, other = batch.tensors["label"], super().pair_weight(batch)
        first, second = self.context.scores[list(batch.indices)].unbind(1)
        weight = torch.tanh((first - second).abs() / self.config.doubt).to(label.device, torch.float32)
        return weight if other is None else weight * other
