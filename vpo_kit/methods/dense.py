"""DenseDPO (arXiv 2506.03517): guided pairs, a label for each segment, a loss for each latent frame."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from vpo_kit.losses import Granularity
from vpo_kit.methods.base import Batch, Context, MethodConfig, Needs
from vpo_kit.methods.offline import OfflineConfig, OfflinePairs
from vpo_kit.pairing.records import Pair


class DenseConfig(OfflineConfig):
    """Settings of `dense`."""

    per: Literal["frame", "mean"] = Field(
        "frame", description="one sigmoid a latent frame (the paper's appendix), or one round their mean (its eq. 7)"
    )
    min_labelled: float = Field(
        0.2, ge=0, lt=1, description="pairs are kept with more than this share of segments that are no tie"
    )


class Dense(OfflinePairs):
    """Each latent frame takes the label of its segment; ties give no loss."""

    summary: ClassVar[str] = "DenseDPO: guided pairs, segment labels, a loss for each latent frame"
    needs: ClassVar[Needs] = Needs(data=("pairs",), strategy="guided")
    Config: ClassVar[type[MethodConfig]] = DenseConfig
    config: DenseConfig

    def __init__(self, config: DenseConfig, context: Context) -> None:
        super().__init__(config, context)
        self.granularity: Granularity = config.per  # type: ignore[misc]

    @classmethod
    def keeps(cls, config: Any, pair: Pair) -> bool:
        labels = pair.labels or []
        if config.motion_weight and not super().keeps(config, pair):
            return False
        return bool(sum(label != 0 for label in labels) > config.min_labelled * len(labels))

    def labels(self, batch: Batch) -> Tensor:
        return batch.tensors["labels"]
