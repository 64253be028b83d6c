"""FAST-VQA, FasterVQA and FAST-VQA-M: technical quality by a Video Swin-T on fragments, MIT.

Wu et al., ECCV 2022 (arXiv 2207.02595) and arXiv 2210.05357. Weights: release v2.0.0 of TimothyHTimothy/FAST-VQA.

Frames, whole clips. ``fastervqa``: 8 runs of 4 frames, one run in each eighth of the clip; ``fastvqa``: 4 clips of 32
frames, one in each quarter; ``fastvqa-m``: 4 clips of 16. Always every second frame, whatever the fps: frames are
counted as they are, as in training (videos of 24 to 30 fps). A clip shorter than what is asked for starts again
at its first frame.

Segments. A segment shorter than one clip of the network (64 frames, 32 for M) is looked at inside so many frames round
it; the score is the mean of the quality map over the positions in time that see the segment. A longer one is judged as
a clip of its own. The segment ``(0, F)`` scores what the clip scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit.errors import ModelError
from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, RewardSpec, Segments
from vpo_kit.rewards.parts.fragments import FragmentSampling, cut_fragments, judged, normalised
from vpo_kit.rewards.parts.swin3d import QualityHead, Triple, VideoSwin
from vpo_kit.rewards.parts.weights import WeightsSource, built, read_state, under
from vpo_kit.video import straight_through_clamp


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What distinguishes the published networks; the score is ``sigmoid((raw - mean) / deviation)``."""

    file: str
    sampling: FragmentSampling
    grid: int
    """Fragments along each side of a frame."""
    aligned: int
    """Sampled frames in a row whose fragments lie at the same places."""
    window: Triple
    mean: float
    deviation: float


VARIANTS = {
    "fastervqa": Variant(
        file="FAST_VQA_3D_1_1.pth",
        sampling=FragmentSampling(8, 4, 2, 32),
        grid=7,
        aligned=8,
        window=(8, 7, 7),
        mean=0.14759505,
        deviation=0.03613452,
    ),
    "fastvqa": Variant(
        file="FAST_VQA_B_1_4.pth",
        sampling=FragmentSampling(4, 32, 2, 32),
        grid=7,
        aligned=32,
        window=(8, 7, 7),
        mean=-0.110198185,
        deviation=0.04178565,
    ),
    # Version 3 of the published code also shrinks M's windows to 2 x 2 x 2; the weights were trained with 4 x 4 x 4.
    "fastvqa-m": Variant(
        file="FAST_VQA_M_1_4.pth",
        sampling=FragmentSampling(4, 16, 2, 16),
        grid=4,
        aligned=8,
        window=(4, 4, 4),
        mean=0.023889644,
        deviation=0.030781006,
    ),
}


class FastVQA(Reward):
    """`components`: ``raw``, the network's mean before the sigmoid."""

    class Config(RewardConfig):
        weights: Path | None = None
        """The published ``.pth`` file of the variant, or its tensors as safetensors."""
        variant: Literal["fastervqa", "fastvqa", "fastvqa-m"] = "fastervqa"
        """The network, and the file that goes with it."""
        seed: int = Field(0, ge=0)
        """The seed of where fragments are cut in time and space."""

    spec: ClassVar[RewardSpec] = RewardSpec(
        name="fastvqa",
        licence="MIT",
        source="GitHub release v2.0.0 of TimothyHTimothy/FAST-VQA (0.1 GB)",
        scale="0 to 1, technical quality as people rated it on LSVQ",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
    )

    @classmethod
    def locate(cls, config: Any) -> list[Path]:
        own = cast(FastVQA.Config, config)
        place = "the GitHub release v2.0.0 of TimothyHTimothy/FAST-VQA"
        return [
            WeightsSource(
                reward="fastvqa", what=VARIANTS[own.variant].file, place=place, size="0.1 GB", licence="MIT"
            ).require(own.weights)
        ]

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        own = cast(FastVQA.Config, self.config)
        self.variant, self.seed = VARIANTS[own.variant], own.seed
        (path,) = self.locate(own)
        state = read_state(path)
        self.backbone = built(VideoSwin, under(state, "fragments_backbone."), path, own.variant)
        if self.backbone.window != self.variant.window:
            raise ModelError(
                f"{path} holds windows of {self.backbone.window}, and {own.variant} has {self.variant.window}: "
                f"give {self.variant.file} or set reward.variant"
            )
        self.head = built(QualityHead, under(state, "vqa_head."), path, own.variant)

    def forward(
        self, video: Tensor, prompts: Any = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        wanted = [(0, video.shape[1]), *(segments or [])]
        video, sampling = straight_through_clamp(video), self.variant.sampling
        raw = torch.stack([judged(one, wanted, sampling, self._look, self.seed) for one in video])
        score = torch.sigmoid((raw - self.variant.mean) / self.variant.deviation)
        return RewardOutput(score[:, 0], None if segments is None else score[:, 1:], {"raw": raw[:, 0]})

    def _look(self, video: Tensor, frames: Tensor, generator: torch.Generator) -> Tensor:
        kind = self.variant
        seen = cut_fragments(video, frames, grid=kind.grid, aligned=kind.aligned, generator=generator)
        clips = normalised(seen).view(-1, kind.sampling.clip, *seen.shape[1:]).transpose(1, 2)
        return cast(Tensor, self.head(self.backbone(clips)).mean((2, 3)).flatten())
