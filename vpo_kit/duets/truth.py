"""What is true of clips of two sprites, read from their pixels."""

from __future__ import annotations

from typing import Any

from vpo_kit.duets import tracker, world
from vpo_kit.sprites.truth import SpriteTruth


class DuetTruth(SpriteTruth):
    """The same metrics, read by the trackers of this world; of each kind of word it is the share of two shapes."""

    @staticmethod
    def parse(caption: str) -> Any:
        return world.parse(caption)

    @staticmethod
    def judge(clip: Any, scene: Any) -> dict[str, float]:
        return tracker.judge(clip, scene)
