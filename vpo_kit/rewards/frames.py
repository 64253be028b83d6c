"""What the embedded judges share: a score for each frame, seen in its clip, and how frames become one score.

Legend: ``B`` videos, ``F`` frames. Video is float ``[B, F, 3, H, W]`` in [0, 1]. Scores are in units of the mean drop
that a degradation of severity 2 (of 5) costs, and held-out clean clips have mean 0 (`report.calibrate`). They order
videos of one prompt; over contents the scale is weak.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from vpo_kit.errors import ModelError, first_line
from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, Segments, enough_frames
from vpo_kit.video import straight_through_clamp

WORKING_SIZE = 64


class FrameScorer(nn.Module):
    """A score for each frame, ``[B, F, 3, H, W]`` in [0, 1] to ``[B, F]``; F >= 2, H and W >= 32."""

    offset: Tensor
    unit: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("unit", torch.ones(()))

    def raw(self, video: Tensor) -> Tensor:
        """``[B, F, 3, h, w]`` in [0, 1], its shorter side `WORKING_SIZE`, to scores ``[B, F]`` of any scale."""
        raise NotImplementedError

    def forward(self, video: Tensor) -> Tensor:
        return (self.raw(resized(straight_through_clamp(video))) - self.offset) / self.unit


def pool(frames: Tensor) -> Tensor:
    """Frame scores ``[..., F]`` to one score: a soft minimum that does not depend on the number of frames.

    It is the mean for frames that agree and leans to the worst where they differ, so that a bad window of
    half a second is not averaged away in a long clip.
    """
    return -(torch.logsumexp(-frames, -1) - torch.log(torch.tensor(float(frames.shape[-1]))))


def shifted(x: Tensor, step: int) -> Tensor:
    """``x[:, f + step]``, with the first and last frame repeated beyond the ends."""
    frames = torch.arange(x.shape[1], device=x.device) + step
    return x.index_select(1, frames.clamp(0, x.shape[1] - 1))


def resized(video: Tensor) -> Tensor:
    """Shorter side to `WORKING_SIZE`, the other to the nearest multiple of 8 that keeps the proportions."""
    height, width = video.shape[-2:]
    scale = WORKING_SIZE / min(height, width)
    size = [max(WORKING_SIZE, 8 * round(n * scale / 8)) for n in (height, width)]
    if size == [height, width]:
        return video
    small = functional.interpolate(video.flatten(0, 1), size, mode="bilinear", antialias=True)
    return small.view(*video.shape[:2], *small.shape[1:])


class FramesReward(Reward):
    """A reward that a `FrameScorer` gives. A new one is a `spec`, a `build` and the name of its `shipped` weights."""

    class Config(RewardConfig):
        weights: Path | None = None
        """A safetensors file written by ``vpo reward train-vqa``; the shipped one by default."""

    shipped: ClassVar[str]

    @staticmethod
    def build() -> FrameScorer:
        """The network with random weights."""
        raise NotImplementedError

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        weights = cast(FramesReward.Config, self.config).weights
        self.judge = load_judge(self.build, weights or Path(__file__).with_name(self.shipped))

    def forward(
        self, video: Tensor, prompts: Any = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        """Raises `DataError` for a single frame: there is no change to be judged."""
        enough_frames(self.spec.name, video, 2)
        # One video at a time is up to twice as fast on CPUs: a video's maps fit the cache, a batch's do not.
        size = 1 if video.device.type == "cpu" else 8
        frames = torch.cat([self.judge(part) for part in torch.split(video, size)])
        parts = None if segments is None else torch.stack([pool(frames[:, a:b]) for a, b in segments], 1)
        return RewardOutput(pool(frames), parts, {"mean_frame": frames.mean(1), "worst_frame": frames.amin(1)})


def load_judge(build: Callable[[], FrameScorer], weights: Path) -> FrameScorer:
    """A frozen judge with the weights of a file; `ModelError` where they are missing or do not fit."""
    if not weights.is_file():
        raise ModelError(f"no weights of a judge at {weights}")
    judge = build()
    try:
        judge.load_state_dict(load_file(weights))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read the judge's weights {weights}: {first_line(error)}") from None
    except RuntimeError:
        raise ModelError(f"the weights {weights} are not those of this judge") from None
    return judge.requires_grad_(False).eval().to(memory_format=torch.channels_last)  # halves the time on CPUs
