"""Colourfulness in closed form (Hasler and Süsstrunk 2003, M3): a reward for vpo-kit in a package of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, RewardSpec, Segments
from vpo_kit.video import straight_through_clamp


class Config(RewardConfig):
    target: float = Field(0.4, ge=0)
    """As colourful as this is best; without a target the reward would end in neon."""


class Colourfulness(Reward):
    Config = Config
    spec = RewardSpec(
        name="colourfulness",
        licence="Apache-2.0",
        source="closed form, no weights",
        scale="at most 0, the best: minus the distance to the target, and 0.4 is vivid",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
    )

    def forward(
        self, video: Tensor, prompts: Sequence[str] | None = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        red, green, blue = straight_through_clamp(video).flatten(3).unbind(2)  # [B, F, pixels] each
        opponent = torch.stack([red - green, (red + green) / 2 - blue])
        spread = (opponent.var(-1).sum(0) + 1e-8).sqrt()
        distance = (opponent.mean(-1).square().sum(0) + 1e-8).sqrt()
        found = spread + 0.3 * distance
        frames = -(found - self.config.target).abs()
        parts = None if segments is None else torch.stack([frames[:, a:b].mean(1) for a, b in segments], 1)
        return RewardOutput(frames.mean(1), parts, {"colourfulness": found.mean(1)})
