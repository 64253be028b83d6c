"""A judge that prefers the brighter video."""

from __future__ import annotations

from vpo_kit.rewards.base import Reward, RewardOutput, RewardSpec


class Loud(Reward):
    """Likes noise; what is held still moves as little as what moves, so it cannot tell."""

    spec = RewardSpec(
        name="loud",
        licence="none",
        source="this file",
        scale="higher is louder",
        differentiable=False,
        per_segment=False,
        needs_prompt=False,
    )
    calls = 0

    def forward(self, video, prompts=None, *, fps, segments=None):  # type: ignore[no-untyped-def]
        Loud.calls += 1
        return RewardOutput(video.std((1, 2, 3, 4)))
