"""InstructVideo (arXiv 2312.12490): reward fine-tuning as editing of real clips."""

from __future__ import annotations

from typing import Any, ClassVar

from vpo_kit.methods.base import MethodConfig, Needs
from vpo_kit.methods.editing import Editing, EditingConfig
from vpo_kit.pairing.records import Pair


class Instruct(Editing):
    """A clip noised partway, denoised, and the gradient of a segmental, attenuated reward through the last step."""

    summary: ClassVar[str] = "InstructVideo: edit real clips, reward gradient of the last step"
    needs: ClassVar[Needs] = Needs(data=("videos", "pairs"), reward="differentiable")
    Config: ClassVar[type[MethodConfig]] = EditingConfig

    @classmethod
    def keeps(cls, config: Any, pair: Pair) -> bool:
        return pair.has_clip
