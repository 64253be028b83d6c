"""What rewards of single pictures share: which frames are scored, how they are brought to size, how scores are pooled.

Legend: ``B`` videos, ``F`` frames, ``S`` segments, ``N`` frames of all videos together, ``D`` features. Video is float
``[B, F, 3, H, W]`` in [0, 1]. Everything is differentiable with respect to the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vpo_kit.errors import ConfigError
from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, Segments
from vpo_kit.video import straight_through_clamp

Resize = Literal["pad", "squash", "crop"]
Mode = Literal["bicubic", "bilinear"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageRewardConfig(RewardConfig):
    weights: Path | None = None
    """A file in the published layout; by default the published one, from the hub's cache or downloaded."""
    frames: int = Field(8, ge=0)
    """The largest number of frames of a clip that are scored, evenly spread; 0 is all of them."""
    resize: Resize = "crop"
    """How a frame is brought to the network's square: the longer side fits and black fills up, the sides are squashed,
    or the shorter side fits and the middle is kept.
    """
    chunk: int = Field(16, ge=1)
    """Frames that go through the network at once."""


class ImageReward(Reward):
    """A reward of single frames. A new one is a `spec` and a `score_frames`.

    The score of a clip is the mean over the frames used. A segment's is the mean over those of them that lie in it, or
    its middle frame where none does.
    """

    Config = ImageRewardConfig
    aspects: ClassVar[tuple[str, ...]] = ()
    """What a frame is told beside its score; the means over the frames used come back as components."""

    def score_frames(self, frames: Tensor, prompts: Sequence[str] | None) -> Tensor:
        """Frames ``[N, 3, H, W]`` in [0, 1], each with its prompt, to scores ``[N]``; with K aspects ``[N, 1 + K]``."""
        raise NotImplementedError

    def forward(
        self, video: Tensor, prompts: Sequence[str] | None = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        """Raises `ConfigError` where the reward needs prompts and there are none."""
        if self.spec.needs_prompt and prompts is None:
            raise ConfigError(f"reward {self.spec.name!r} judges a video by its prompt: give prompts")
        settings = cast(ImageRewardConfig, self.config)
        used = spread(video.shape[1], settings.frames)
        inside = [[f for f in used if a <= f < b] or [(a + b) // 2] for a, b in segments or ()]
        wanted = sorted({*used, *(f for part in inside for f in part)})
        frames = video[:, wanted].flatten(0, 1)
        texts = [p for p in prompts for _ in wanted] if prompts is not None and self.spec.needs_prompt else None
        found = []
        for start in range(0, len(frames), settings.chunk):
            part = slice(start, start + settings.chunk)
            found.append(self.score_frames(frames[part], None if texts is None else texts[part]))
        scores = torch.cat(found).float().view(len(video), len(wanted), 1 + len(self.aspects))
        place = {f: i for i, f in enumerate(wanted)}

        def mean(chosen: Sequence[int]) -> Tensor:
            return scores[:, [place[f] for f in chosen]].mean(1)

        parts = None if segments is None else torch.stack([mean(part)[:, 0] for part in inside], 1)
        score, *others = mean(used).unbind(1)
        return RewardOutput(score, parts, dict(zip(self.aspects, others, strict=True)))


class TwoTowers(nn.Module):
    """A network that brings frames and texts into one space, frozen, with its preprocessing."""

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Frames ``[N, 3, H, W]`` in [0, 1] to features ``[N, D]``."""
        raise NotImplementedError

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts to features ``[len(texts), D]``."""
        raise NotImplementedError


class TextImageReward(ImageReward):
    """The cosine between the features of frame and prompt, times `scale`. A new one sets `network` when it is made."""

    network: TwoTowers

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._features: dict[str, Tensor] = {}

    @property
    def scale(self) -> Tensor | float:
        return 1.0

    def score_frames(self, frames: Tensor, prompts: Sequence[str] | None) -> Tensor:
        assert prompts is not None
        seen = functional.normalize(self.network.embed_frames(frames), dim=-1)
        return self.scale * (seen * self._texts(prompts).to(seen)).sum(-1)

    @torch.no_grad()
    def _texts(self, prompts: Sequence[str]) -> Tensor:
        """``[N, D]``; a prompt is encoded once in the reward's life, as training repeats its prompts many times."""
        new = [text for text in dict.fromkeys(prompts) if text not in self._features]
        if new:
            features = functional.normalize(self.network.embed_texts(new), dim=-1)
            self._features.update(zip(new, features.float().cpu(), strict=True))
        return torch.stack([self._features[text] for text in prompts])


class Prepare(nn.Module):
    """Frames ``[N, 3, H, W]`` in [0, 1] to a network's normalised input ``[N, 3, *size]``.

    Values outside [0, 1], as decoders and bicubic filters give them, are clamped straight-through: a picture file could
    not hold them, but their gradients count.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        size: tuple[int, int],
        resize: Resize,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        mode: Mode = "bicubic",
    ) -> None:
        super().__init__()
        self.size, self.resize, self.mode = size, resize, mode
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, frames: Tensor) -> Tensor:
        fitted = fit(straight_through_clamp(frames.to(self.mean.dtype)), self.size, self.resize, self.mode)
        return (fitted - self.mean) / self.std


def fit(frames: Tensor, size: tuple[int, int], resize: Resize, mode: Mode = "bicubic") -> Tensor:
    """``[N, 3, H, W]`` to ``[N, 3, *size]``, antialiased as PIL does it, and clamped straight-through."""
    height, width = frames.shape[-2:]
    ratios = size[0] / height, size[1] / width
    if resize == "squash":
        new = size
    else:
        # each as its own tools do it: HPSv2 rounds, torchvision and transformers cut off
        ratio, whole = (min(ratios), 0.5) if resize == "pad" else (max(ratios), 1e-6)
        new = int(height * ratio + whole), int(width * ratio + whole)
    if new != (height, width):
        frames = functional.interpolate(frames, new, mode=mode, antialias=True)
        frames = straight_through_clamp(frames)
    down, across = size[0] - new[0], size[1] - new[1]  # what is missing; below 0, what is cut off
    above, left = (down // 2, across // 2) if resize == "pad" else (-(-down // 2), -(-across // 2))
    return functional.pad(frames, (left, across - left, above, down - above))


def spread(count: int, most: int) -> list[int]:
    """Indices of at most `most` of `count` frames (0: all), the middles of equal stretches."""
    if most == 0 or count <= most:
        return list(range(count))
    return [(2 * i + 1) * count // (2 * most) for i in range(most)]
