"""The truth of a made world, where a model says that it was made on one: prompts that read alike are not enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from vpo_kit.measures import Metric
from vpo_kit.models.base import VideoModel
from vpo_kit.models.settings import Settings
from vpo_kit.registry import TRUTHS

TEXT = "text_accuracy"
"""The metric of a truth that says which share of its caption's words a clip shows."""


class Truth(Protocol):
    """What can be said of a made world's clips without a judge."""

    metrics: ClassVar[Sequence[Metric]]
    least: ClassVar[tuple[int, int]]
    """The fewest frames and the shortest side, in pixels, of a clip that can be read."""

    def knows(self, prompt: str) -> bool:
        """Whether the world has what the prompt speaks of."""

    def __call__(self, video: Tensor, prompts: Sequence[str]) -> dict[str, list[float]]:
        """Metrics by name of `video` ``[B, F, 3, H, W]``, a number for each clip."""


def truth_of(model: VideoModel, settings: Settings, prompts: Sequence[str]) -> Truth | None:
    """The truth that the model's folder declares (``truth`` in ``vpo.json``), where it knows all `prompts` and can read
    videos of these `settings`; else None.

    Raises `ConfigError` for a truth that is not registered.
    """
    if model.truth is None:
        return None
    truth: Truth = TRUTHS.load(model.truth)()
    frames, side = truth.least
    if settings.frames < frames or min(settings.height, settings.width) < side:
        return None
    return truth if all(truth.knows(prompt) for prompt in prompts) else None


def text_of(truth: Truth | None, video: Tensor, prompts: Sequence[str]) -> Tensor | None:
    """The share of right words ``[B]`` of `video` ``[B, F, 3, H, W]``; None without a truth that tells it."""
    if truth is None or all(metric.name != TEXT for metric in truth.metrics):
        return None
    return torch.tensor(truth(video.detach(), prompts)[TEXT])
