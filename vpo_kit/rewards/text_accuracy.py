"""Does a clip of a made world show what its caption says? Read from the pixels by the world's own trackers.

A held-out judge: nothing is learned, and training on it is refused, so that a run which gives up words for looks, while
every judge of looks rises, is seen. The worlds are the registered ones (`vpo_kit.truths`) whose truth tells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from vpo_kit.errors import DataError
from vpo_kit.registry import TRUTHS
from vpo_kit.rewards.base import Reward, RewardOutput, RewardSpec, Segments
from vpo_kit.truth import TEXT, Truth, text_of


class TextAccuracy(Reward):
    """The share of the caption's words that a clip shows; a segment has no score of its own."""

    spec: ClassVar[RewardSpec] = RewardSpec(
        name="text",
        licence="Apache-2.0",
        source="closed form, no weights",
        scale="0 to 1: the share of right words of the caption, read from the pixels",
        differentiable=False,
        per_segment=False,
        needs_prompt=True,
        for_training=False,
        self_contained=True,
        embedded_only=True,
        mean=0.97,  # the embedded model's own videos of its held-out captions
        std=0.08,
    )

    @classmethod
    def check_prompts(cls, config: Any, prompts: Sequence[str]) -> None:
        _worlds(prompts)

    @torch.no_grad()
    def forward(
        self, video: Tensor, prompts: Sequence[str] | None = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        if prompts is None:
            raise DataError("reward 'text' judges a video by its caption, and there is none")
        found = [self._one(*one) for one in zip(video, prompts, _worlds(prompts), strict=True)]
        return RewardOutput(torch.stack(found).to(video.device))

    @staticmethod
    def _one(clip: Tensor, prompt: str, world: Truth) -> Tensor:
        try:
            found = text_of(world, clip[None], [prompt])
        except ValueError as error:  # too few frames or pixels to follow anything in
            raise DataError(f"reward 'text' cannot read a clip: {error}") from error
        assert found is not None
        return found[0]


def _worlds(prompts: Sequence[str]) -> list[Truth]:
    """The world that each of `prompts` speaks of. Raises `DataError` for one that is of none."""
    every = [TRUTHS.load(name)() for name in TRUTHS.targets()]
    known = [truth for truth in every if any(metric.name == TEXT for metric in truth.metrics)]
    found = []
    for prompt in prompts:
        world = next((truth for truth in known if truth.knows(prompt)), None)
        if world is None:
            raise DataError(
                f"reward 'text' reads captions of the embedded worlds alone, not {prompt!r}: leave it out, or take a "
                "judge that reads any prompt (clip, hpsv2.1, videoreward)"
            )
        found.append(world)
    return found
