"""Rewards in closed form: what a test trains on, or makes a mistake with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vpo_kit.rewards.base import Reward, RewardOutput, RewardSpec, Segments

Score = Callable[[Tensor, Sequence[str]], Tensor]
"""Video ``[B, F, 3, H, W]`` in [0, 1] and its prompts (empty where there are none) to scores ``[B]``."""


def brightness(video: Tensor, prompts: Sequence[str]) -> Tensor:
    """The mean pixel of each video: 0 to 1, with a gradient."""
    return video.flatten(1).mean(1)


def stub(name: str, score: Score = brightness, **facts: Any) -> type[Reward]:
    """A reward called `name` that gives `score`; `facts` are fields of its `RewardSpec`. It is differentiable and needs
    no prompt unless they say otherwise, and scores a segment as a clip of its own where it is `per_segment`.
    """
    known = {"licence": "none", "source": "closed form", "scale": "higher is better", "differentiable": True}
    made = RewardSpec(**{"name": name, **known, "per_segment": False, "needs_prompt": False, **facts})

    class Stub(Reward):
        spec = made

        def forward(
            self, video: Tensor, prompts: Sequence[str] | None = None, *, fps: float, segments: Segments | None = None
        ) -> RewardOutput:
            texts = prompts or ()
            if segments is None:
                return RewardOutput(score(video, texts))
            assert made.per_segment, f"{name} was asked for segments, and knows whole clips only"
            parts = [score(video[:, start:end], texts) for start, end in segments]
            return RewardOutput(score(video, texts), torch.stack(parts, 1))

    return Stub


Brightness = stub("brightness", scale="0 to 1")
"""A reward that a few steps can raise."""
