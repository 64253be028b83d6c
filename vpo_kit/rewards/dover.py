"""DOVER: technical and aesthetic quality. NON-COMMERCIAL: the weights are under the S-Lab License 1.0.

Wu et al., ICCV 2023 (arXiv 2211.04894). The code here is this project's own and free; what the weights compute may be
used for non-commercial purposes only, and that holds for a model that is trained with this reward too.

Frames, whole clips. Technical branch: 3 clips of 32 frames, every second frame, one clip in each third of the video, as
7 x 7 fragments of 32 pixels. Aesthetic branch: 32 frames spread over the video, each resized to 224 x 224
(bilinear, without antialiasing, as in training). Frames are counted whatever the fps.

Segments. A segment shorter than 64 frames is looked at inside the 64 frames round it, by both branches, and each map is
averaged over the positions in time that see the segment. The segment ``(0, F)`` scores what the clip scores.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, RewardSpec, Segments
from vpo_kit.rewards.parts.convnext3d import VideoConvNeXt
from vpo_kit.rewards.parts.fragments import FragmentSampling, cut_fragments, judged, normalised
from vpo_kit.rewards.parts.swin3d import QualityHead, VideoSwin
from vpo_kit.rewards.parts.weights import WeightsSource, built, read_state, under
from vpo_kit.video import straight_through_clamp

TECHNICAL = FragmentSampling(3, 32, 2, 32)
AESTHETIC = FragmentSampling(32, 1, 2, 32)
LICENCE = "NON-COMMERCIAL (S-Lab License 1.0)"


class Dover(Reward):
    """`components`: ``technical`` and ``aesthetic``, each branch's raw mean."""

    class Config(RewardConfig):
        weights: Path | None = None
        """The published ``DOVER.pth``, or its tensors as safetensors."""
        seed: int = Field(0, ge=0)
        """The seed of where fragments are cut and which frames are taken."""

    spec: ClassVar[RewardSpec] = RewardSpec(
        name="dover",
        licence=LICENCE,
        source="GitHub release v0.1.0 of QualityAssessment/DOVER (0.2 GB)",
        scale="0 to 1, overall quality, technical and aesthetic",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
    )

    @classmethod
    def locate(cls, config: Any) -> list[Path]:
        place = "the GitHub release v0.1.0 of QualityAssessment/DOVER"
        return [
            WeightsSource(reward="dover", what="DOVER.pth", place=place, size="0.2 GB", licence=LICENCE).require(
                cast(Dover.Config, config).weights
            )
        ]

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        own = cast(Dover.Config, self.config)
        (path,) = self.locate(own)
        state = read_state(path)
        self.seed = own.seed
        self.technical = built(VideoSwin, under(state, "technical_backbone."), path, "DOVER")
        self.technical_head = built(QualityHead, under(state, "technical_head."), path, "DOVER")
        self.aesthetic = built(VideoConvNeXt, under(state, "aesthetic_backbone."), path, "DOVER")
        self.aesthetic_head = built(QualityHead, under(state, "aesthetic_head."), path, "DOVER")
        print(f"dover: {LICENCE}: what is scored or trained with it is for non-commercial use only", file=sys.stderr)

    def forward(
        self, video: Tensor, prompts: Any = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        wanted = [(0, video.shape[1]), *(segments or [])]
        video = straight_through_clamp(video)
        technical = torch.stack([judged(one, wanted, TECHNICAL, self._fragments, self.seed) for one in video])
        aesthetic = torch.stack([judged(one, wanted, AESTHETIC, self._whole, self.seed) for one in video])
        score = fused(technical, aesthetic)
        parts = {"technical": technical[:, 0], "aesthetic": aesthetic[:, 0]}
        return RewardOutput(score[:, 0], None if segments is None else score[:, 1:], parts)

    def _fragments(self, video: Tensor, frames: Tensor, generator: torch.Generator) -> Tensor:
        seen = cut_fragments(video, frames, grid=7, aligned=32, generator=generator)
        clips = normalised(seen).view(-1, TECHNICAL.clip, *seen.shape[1:]).transpose(1, 2)
        return cast(Tensor, self.technical_head(self.technical(clips)).mean((2, 3)).flatten())

    def _whole(self, video: Tensor, frames: Tensor, generator: torch.Generator) -> Tensor:
        seen = functional.interpolate(video[frames], (224, 224), mode="bilinear")
        return cast(Tensor, self.aesthetic_head(self.aesthetic(normalised(seen).transpose(0, 1)[None])).mean((2, 3))[0])


def fused(technical: Tensor, aesthetic: Tensor) -> Tensor:
    """The published weights of the two branches, standardised on the authors' data, through a sigmoid."""
    return torch.sigmoid(0.6104 * (technical - 0.1107) / 0.07355 + 0.3896 * (aesthetic + 0.08285) / 0.03774)
