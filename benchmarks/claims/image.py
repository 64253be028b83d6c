"""An image reward to set against the video reward `vqa`: it scores every frame by itself, as HPSv2 does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from vpo_kit.rewards.base import RewardOutput, RewardSpec, Segments
from vpo_kit.rewards.technical import Technical


class Frames(Technical):
    """`technical` of single frames: softness and blocks are left, nothing that takes two frames to see."""

    spec: ClassVar[RewardSpec] = replace(Technical.spec, name="image", per_segment=False)

    def forward(self, video: Any, prompts: Any = None, *, fps: float, segments: Segments | None = None) -> RewardOutput:
        if segments is not None:
            raise NotImplementedError("single frames are scored, no segments")
        frames = super().forward(video.flatten(0, 1)[:, None], fps=fps)
        return RewardOutput(frames.score.view(video.shape[:2]).mean(1))
