"""What is true of clips of two sprites, read from their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from vpo_kit.duets import tracker, world
from vpo_kit.measures import Metric
from vpo_kit.sprites.truth import SpriteTruth


class DuetTruth:
    """The trackers, for a model whose folder says that it was made on this world; the metrics are the sprites', and of
    each kind of word the share of two shapes.
    """

    metrics: ClassVar[Sequence[Metric]] = SpriteTruth.metrics

    def knows(self, prompt: str) -> bool:
        """Whether the prompt is a caption of the world."""
        try:
            world.parse(prompt)
        except ValueError:
            return False
        return True

    def __call__(self, video: Tensor, prompts: Sequence[str]) -> dict[str, list[float]]:
        """What the clips ``[B, F, 3, H, W]`` show against what their captions say, by the names of metrics."""
        duets = [world.parse(prompt) for prompt in prompts]
        rows = [tracker.judge(clip, duet) for clip, duet in zip(video.float().cpu().numpy(), duets, strict=True)]
        return {key: [row[key] for row in rows] for key in rows[0]}
