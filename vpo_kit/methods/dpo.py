"""VanillaDPO: independent pairs, one label for the whole clip (Diffusion-DPO on videos), with VideoDPO's weights."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit import losses
from vpo_kit.methods.base import Batch, MethodConfig, Needs
from vpo_kit.methods.offline import OfflineConfig, OfflinePairs
from vpo_kit.pairing.records import Pair


class DPOConfig(OfflineConfig):
    """Settings of `dpo`."""

    weight_alpha: float = Field(
        0.0, ge=0, description="VideoDPO: weight (p_max / sqrt(p_w p_l))^alpha from the histogram of scores; 0 is off"
    )


class DPO(OfflinePairs):
    """Whole-clip DPO on pairs from independent noise."""

    summary: ClassVar[str] = "VanillaDPO: independent pairs, one label each; VideoDPO's weights"
    needs: ClassVar[Needs] = Needs(data=("pairs",), strategy="independent")
    Config: ClassVar[type[MethodConfig]] = DPOConfig
    config: DPOConfig

    @classmethod
    def keeps(cls, config: Any, pair: Pair) -> bool:
        return super().keeps(config, pair) and (config.weight_alpha == 0 or pair.scores is not None)

    def labels(self, batch: Batch) -> Tensor:
        return batch.tensors["label"]

    def pair_weight(self, batch: Batch) -> Tensor | None:
        other = super().pair_weight(batch)
        if not self.config.weight_alpha or self.context.scores is None:
            return other
        known = self.context.scores
        first, second = known[list(batch.indices)].unbind(1)
        first_wins = batch.tensors["label"].to(known.device) > 0
        winner, loser = torch.where(first_wins, first, second), torch.where(first_wins, second, first)
        weights = losses.pair_weights(winner, loser, known[~known.isnan()], alpha=self.config.weight_alpha)
        weights = weights.to(batch.tensors["label"].device)
        return weights if other is None else weights * other
