"""VideoReward of VideoAlign: Qwen2-VL-2B with a reward head at three special tokens, on stock transformers.

Liu et al., "Improving Video Generation with Human Feedback" (arXiv 2501.13918). Weights: ``KwaiVGI/VideoReward`` (also
``KlingTeam/VideoReward``) on the Hugging Face hub, as a local folder, and ``Qwen/Qwen2-VL-2B-Instruct`` for the
tokenizer (and, where the checkpoint is a LoRA, for the base weights). The question that the model was trained on is
read from ``prompt_template.py`` of github KwaiVGI/VideoAlign.

Frames, whole clips. 2 a second (``fps`` of ``model_config.json``), at least 4, an even number, evenly spread from the
first to the last; resized to at most ``max_frame_pixels`` pixels, bicubic, sides in multiples of 28.

Segments. A segment is judged as a clip of its own. One shorter than a second is first widened to a second, and
one of fewer than 4 frames to 4, with the frames round it. The segment ``(0, F)`` scores what the clip scores.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vpo_kit.errors import DataError, ModelError
from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, RewardSpec, Segments, enough_frames
from vpo_kit.rewards.parts import vlm
from vpo_kit.rewards.parts.fragments import widened
from vpo_kit.rewards.parts.videoalign import DataLayout, base_folder, read_checkpoint, read_settings
from vpo_kit.rewards.parts.weights import WeightsSource
from vpo_kit.video import straight_through_clamp

ASPECTS = ("VQ", "MQ", "TA")
TOKENS = [f"<|{aspect}_reward|>" for aspect in ASPECTS]
LEAST = 4
MIN_PIXELS = 128 * 28 * 28
"""The number of pixels to which smaller frames are enlarged, as in VideoAlign's reader of videos."""


class VideoReward(Reward):
    """The score is the sum of visual quality, motion quality and text alignment, each standardised.

    `components`: ``VQ``, ``MQ``, ``TA``.
    """

    mean: Tensor
    deviation: Tensor

    class Config(RewardConfig):
        weights: Path | None = None
        """The downloaded folder: ``model_config.json`` and ``checkpoint-N``."""
        base: Path | None = None
        """The folder of Qwen2-VL-2B-Instruct; default: what the local hub cache holds."""
        question: Path | None = None
        """VideoAlign's ``prompt_template.py``, or its text; default: that file in the folder of the weights."""
        dtype: Literal["bfloat16", "float32"] = "bfloat16"
        """The data type of the weights."""
        batch_size: int = Field(1, ge=1)
        """Videos judged at once."""
        context: float = Field(1.0, ge=0)
        """Seconds to which a shorter segment is widened."""

    spec: ClassVar[RewardSpec] = RewardSpec(
        name="videoreward",
        licence="MIT code, Apache-2.0 weights",
        source="KwaiVGI/VideoReward on the Hugging Face hub (5 GB) and Qwen/Qwen2-VL-2B-Instruct",
        scale="about -6 to 6, sum of three standardised aspects",
        differentiable=True,
        per_segment=True,
        needs_prompt=True,
    )

    @classmethod
    def locate(cls, config: Any) -> list[Path]:
        what, hub = "the model folder KwaiVGI/VideoReward", "the Hugging Face hub"
        source = WeightsSource(
            reward="videoreward", what=what, place=hub, size="5 GB", licence="Apache-2.0", folder=True
        )
        return [source.require(cast(VideoReward.Config, config).weights)]

    def __init__(self, config: Any = None) -> None:
        from transformers import Qwen2VLModel

        super().__init__(config)
        own = cast(VideoReward.Config, self.config)
        (folder,) = self.locate(own)
        self.settings = settings = read_settings(folder / "model_config.json")
        base = base_folder(own.base, settings.network.model_name_or_path)
        self.question = read_question(own.question or folder / "prompt_template.py", own.question is not None)
        self.processor, network = vlm.load_processor(base), vlm.load_config(base, "qwen2_vl")
        self.processor.tokenizer.add_tokens(TOKENS, special_tokens=True)
        self.token_ids = self.processor.tokenizer.convert_tokens_to_ids(TOKENS)
        state = read_checkpoint(folder, base, settings.lora.scale)
        head, embedding = state.pop("rm_head.weight", None), state.get("language_model.embed_tokens.weight")
        if head is None or embedding is None or len(head) not in (1, 3):
            raise ModelError(
                f"{folder} is no VideoReward checkpoint: rm_head with 1 or 3 rows, or the embeddings, lack"
            )
        if max(self.token_ids) >= len(embedding):
            raise ModelError(
                f"{folder} and the tokenizer in {base} do not belong together: the reward tokens have no row"
            )
        network.text_config.vocab_size = len(embedding)
        dtype = getattr(torch, own.dtype)
        self.model = vlm.stock_model(Qwen2VLModel, network, state, dtype, folder)
        self.head = nn.Parameter(head.to(dtype), requires_grad=False)
        norm = settings.norm.model_dump() if settings.norm else {}
        self.register_buffer("mean", torch.tensor([norm.get(f"{aspect}_mean", 0.0) for aspect in ASPECTS]))
        self.register_buffer("deviation", torch.tensor([norm.get(f"{aspect}_std", 1.0) for aspect in ASPECTS]))

    def forward(
        self, video: Tensor, prompts: Any = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        """Raises `DataError` for a single frame."""
        enough_frames(self.spec.name, video, 2)
        own = cast(VideoReward.Config, self.config)
        marks = (*TOKENS, self.processor.video_token, self.processor.image_token)
        texts = vlm.prompts_of(prompts, len(video), "videoreward", marks)
        video, count = straight_through_clamp(video), video.shape[1]
        least = max(LEAST, math.ceil(own.context * fps))
        spans = [(0, count), *(widened(segment, least, count) for segment in segments or [])]

        def pick(frames: int) -> Tensor:
            return picked(frames, fps, self.settings.data)

        raw = vlm.judged(video, texts, spans, pick, self._aspects, own.batch_size)
        aspects = (raw - self.mean) / self.deviation
        score = aspects.sum(2)
        components = dict(zip(ASPECTS, aspects[:, 0].unbind(1), strict=True))
        return RewardOutput(score[:, 0], None if segments is None else score[:, 1:], components)

    def _aspects(self, video: Tensor, prompts: list[str]) -> Tensor:
        """``[b, T, 3, H, W]`` to the head's outputs at the three tokens, ``[b, 3]``."""
        content = [
            [{"type": "video"}, {"type": "text", "text": self.question.replace("{text_prompt}", p)}] for p in prompts
        ]
        chats = [[{"role": "user", "content": part}] for part in content]
        texts = self.processor.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        batch = self.processor(
            text=texts,
            videos=list(self._resized(video)),
            padding=True,
            return_tensors="pt",
            do_resize=False,
            do_rescale=False,
            do_sample_frames=False,
            cap_pixels_per_frame=False,
        ).to(video.device)
        ids = batch["input_ids"]
        # One running position for text and video alike: VideoAlign calls the language model in a way that made
        # transformers 4.45 leave out Qwen2-VL's positions in three axes, and the weights were trained so.
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        hidden = self.model(
            input_ids=ids,
            attention_mask=batch["attention_mask"],
            position_ids=positions,
            use_cache=False,
            pixel_values_videos=batch["pixel_values_videos"],
            video_grid_thw=batch["video_grid_thw"],
        ).last_hidden_state
        places = torch.stack([(ids == token).int().argmax(1) for token in self.token_ids], 1)
        chosen = hidden[torch.arange(len(ids), device=ids.device)[:, None], places]
        # A head of one row is read at all three tokens, one of three rows has its own row for each.
        return cast(Tensor, (chosen * self.head).sum(2).float())

    def _resized(self, video: Tensor) -> Tensor:
        from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize

        reader = self.processor.video_processor
        size = smart_resize(
            *video.shape[-2:],
            factor=reader.patch_size * reader.merge_size,
            min_pixels=MIN_PIXELS,
            max_pixels=self.settings.data.max_frame_pixels,
        )
        small = functional.interpolate(video.flatten(0, 1), list(size), mode="bicubic", antialias=True)
        return straight_through_clamp(small).view(*video.shape[:3], *size)


def read_question(path: Path, given: bool) -> str:
    """The question, with each reward token once. Raises `ModelError`."""
    if not path.is_file() and not given:
        raise ModelError(
            f"reward 'videoreward' needs the question it was trained on: put prompt_template.py of github "
            f"KwaiVGI/VideoAlign (MIT, 10 kB) into {path.parent} or give its path with --set reward.question=PATH"
        )
    question = vlm.read_template(path, "DETAILED_PROMPT_WITH_SPECIAL_TOKEN")
    if any(question.count(token) != 1 for token in TOKENS):
        raise ModelError(f"the question in {path} must hold each of {', '.join(TOKENS)} once")
    return question


def picked(count: int, fps: float, settings: DataLayout) -> Tensor:
    """Indices of the frames that are judged, of `count`: an even number, from the first to the last."""
    if settings.num_frames is None:
        wanted = min(max(count / fps * settings.fps, LEAST), count // 2 * 2)
    else:
        wanted = settings.num_frames
    number = min(round(wanted / 2) * 2, count)
    if number < 2:
        raise DataError(f"reward 'videoreward' needs at least 2 frames, not {count}")
    return torch.linspace(0, count - 1, number).round().long()
