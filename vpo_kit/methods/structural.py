"""StructuralDPO (DenseDPO's baseline, arXiv 2506.03517): guided pairs, one label for the whole clip."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from vpo_kit.methods.base import Batch, MethodConfig, Needs
from vpo_kit.methods.offline import OfflineConfig, OfflinePairs


class Structural(OfflinePairs):
    """Whole-clip DPO on pairs that share their structure."""

    summary: ClassVar[str] = "StructuralDPO: guided pairs, one label for the clip"
    needs: ClassVar[Needs] = Needs(data=("pairs",), strategy="guided")
    Config: ClassVar[type[MethodConfig]] = OfflineConfig

    def labels(self, batch: Batch) -> Tensor:
        return batch.tensors["label"]
