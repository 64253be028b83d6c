"""What is true of the embedded world's clips, read from their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from vpo_kit.measures import Metric, Need
from vpo_kit.sprites import tracker, world

NEEDS: tuple[Need, ...] = ("prompt", "truth")


class SpriteTruth:
    """The trackers, for a model whose folder says that it was made on this world."""

    least: ClassVar[tuple[int, int]] = (tracker.LEAST_FRAMES, tracker.HALF)
    metrics: ClassVar[Sequence[Metric]] = (
        Metric(
            name="text_accuracy",
            group="truth",
            direction="higher",
            unit="share",
            about="right words of colour, shape, direction and speed",
            needs=NEEDS,
        ),
        Metric(name="flawed", group="truth", direction="lower", unit="share", about="clips with a flaw", needs=NEEDS),
        Metric(
            name="speed", group="truth", direction="neutral", unit="px a frame", about="the shape's speed", needs=NEEDS
        ),
        Metric(
            name="colour",
            group="truth",
            direction="higher",
            unit="share",
            about="clips with the right colour",
            needs=NEEDS,
        ),
        Metric(
            name="shape",
            group="truth",
            direction="higher",
            unit="share",
            about="clips with the right shape",
            needs=NEEDS,
        ),
        Metric(
            name="direction",
            group="truth",
            direction="higher",
            unit="share",
            about="clips with the right direction",
            needs=NEEDS,
        ),
        Metric(
            name="speed_class",
            group="truth",
            direction="higher",
            unit="share",
            about="clips with the right word for the speed",
            needs=NEEDS,
        ),
        Metric(
            name="background",
            group="truth",
            direction="higher",
            unit="share",
            about="clips with the right background",
            needs=NEEDS,
        ),
    )

    @staticmethod
    def parse(caption: str) -> Any:
        """The scene of a caption of the world. Raises `ValueError` for any other text."""
        return world.parse(caption)

    @staticmethod
    def judge(clip: Any, scene: Any) -> dict[str, float]:
        """What a clip ``[F, 3, H, W]`` shows of a scene, by the names of metrics."""
        return tracker.judge(clip, scene)

    def knows(self, prompt: str) -> bool:
        """Whether the prompt is a caption of the world."""
        try:
            self.parse(prompt)
        except ValueError:
            return False
        return True

    def __call__(self, video: Tensor, prompts: Sequence[str]) -> dict[str, list[float]]:
        """What the clips ``[B, F, 3, H, W]`` show against what their captions say, by the names of metrics."""
        scenes = [self.parse(prompt) for prompt in prompts]
        rows = [self.judge(clip, scene) for clip, scene in zip(video.float().cpu().numpy(), scenes, strict=True)]
        return {key: [row[key] for row in rows] for key in rows[0]}
