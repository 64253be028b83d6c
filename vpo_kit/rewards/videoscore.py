"""VideoScore v1 and v1.1: Idefics2 with a five-way regression head at the last token, on stock transformers.

He et al., EMNLP 2024 (arXiv 2406.15252). Weights: ``TIGER-Lab/VideoScore`` and ``TIGER-Lab/VideoScore-v1.1`` on the
Hugging Face hub, as a local folder. The question that the model was trained on is read from the folder's ``README.md``.

Frames, whole clips. All frames of a clip of up to 16 (v1) or 48 (v1.1), else as many, evenly spread from the first;
each is one image. Frames are counted whatever the fps; the training videos had 8 a second.

Segments. A segment is judged as a clip of its own; one of fewer than 4 frames is first widened to 4, with the frames
round it. The segment ``(0, F)`` scores what the clip scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, RewardSpec, Segments
from vpo_kit.rewards.parts import vlm
from vpo_kit.rewards.parts.fragments import widened
from vpo_kit.rewards.parts.weights import WeightsSource, check_fit, read_folder, under
from vpo_kit.video import straight_through_clamp

ASPECTS = ("visual_quality", "temporal_consistency", "dynamic_degree", "text_alignment", "factual_consistency")
FRAMES = {"v1": 16, "v1.1": 48}
LEAST = 4


class VideoScore(Reward):
    """The score is the mean of the five aspects; `components` holds each of them."""

    class Config(RewardConfig):
        weights: Path | None = None
        """The downloaded model folder."""
        version: Literal["v1", "v1.1"] = "v1.1"
        """The published network that the folder holds."""
        question: Path | None = None
        """A file with the question, where the folder's ``README.md`` does not hold REGRESSION_QUERY_PROMPT."""
        dtype: Literal["bfloat16", "float32"] = "bfloat16"
        """The data type of the weights."""
        batch_size: int = Field(1, ge=1)
        """Videos judged at once; 16 frames are about 1,100 tokens."""

    spec: ClassVar[RewardSpec] = RewardSpec(
        name="videoscore",
        licence="MIT code, Apache-2.0 weights",
        source="TIGER-Lab/VideoScore-v1.1 on the Hugging Face hub (16.5 GB)",
        scale="about 1 to 4, mean of five aspects",
        differentiable=True,
        per_segment=True,
        needs_prompt=True,
    )

    @classmethod
    def locate(cls, config: Any) -> list[Path]:
        own = cast(VideoScore.Config, config)
        name = {"v1": "TIGER-Lab/VideoScore", "v1.1": "TIGER-Lab/VideoScore-v1.1"}[own.version]
        source = WeightsSource(
            reward="videoscore",
            what=f"the model folder {name}",
            place="the Hugging Face hub",
            size="16.5 GB",
            licence="Apache-2.0",
            folder=True,
        )
        return [source.require(own.weights)]

    def __init__(self, config: Any = None) -> None:
        from transformers import Idefics2Model

        super().__init__(config)
        own = cast(VideoScore.Config, self.config)
        (folder,) = self.locate(own)
        self.question = vlm.read_template(own.question or folder / "README.md", "REGRESSION_QUERY_PROMPT")
        settings, self.processor = vlm.load_config(folder, "idefics2"), vlm.load_processor(folder)
        state, dtype = read_folder(folder), getattr(torch, own.dtype)
        self.score = nn.Linear(settings.text_config.hidden_size, len(ASPECTS))
        check_fit(self.score, under(state, "score."), folder, "VideoScore's head")
        self.score.load_state_dict(under(state, "score."))
        self.score.to(dtype)
        body = {key: value for key, value in state.items() if not key.startswith("score.")}
        self.model = vlm.stock_model(Idefics2Model, settings, under(body, "model."), dtype, folder)

    def forward(
        self, video: Tensor, prompts: Any = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        own = cast(VideoScore.Config, self.config)
        texts = vlm.prompts_of(prompts, len(video), "videoscore", (self.processor.image_token,))
        video, count = straight_through_clamp(video), video.shape[1]
        spans = [(0, count), *(widened(segment, LEAST, count) for segment in segments or [])]
        most = FRAMES[own.version]
        aspects = vlm.judged(video, texts, spans, lambda frames: spread(frames, most), self._aspects, own.batch_size)
        score = aspects.mean(2)
        components = dict(zip(ASPECTS, aspects[:, 0].unbind(1), strict=True))
        return RewardOutput(score[:, 0], None if segments is None else score[:, 1:], components)

    def _aspects(self, video: Tensor, prompts: list[str]) -> Tensor:
        """``[b, T, 3, H, W]`` to ``[b, 5]``."""
        images = "<image> " * video.shape[1]
        texts = [self.question.replace("{text_prompt}", prompt) + images for prompt in prompts]
        # The processor as a whole takes no tensors; its two halves do, and the image half keeps autograd.
        words = self.processor(text=texts, padding=True, return_tensors="pt").to(video.device)
        pixels = self.processor.image_processor([list(one) for one in video], do_rescale=False, return_tensors="pt")
        hidden = self.model(**words, **pixels, use_cache=False).last_hidden_state
        return cast(Tensor, self.score(vlm.last_tokens(hidden, words["attention_mask"])).float())


def spread(count: int, most: int) -> Tensor:
    """Indices of all frames, or of `most` of them, evenly from the first."""
    return torch.arange(count) if count <= most else torch.arange(most) * count // most
