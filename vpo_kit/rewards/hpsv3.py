"""HPSv3: Qwen2-VL-7B with a head that gives mean and deviation of people's preference, on stock transformers.

Legend: ``N`` frames. Ma et al., "HPSv3: Towards Wide-Spectrum Human Preference Score" (arXiv 2508.03789). Weights:
``HPSv3.safetensors`` of ``MizzenAI/HPSv3`` on the Hugging Face hub (MIT), and ``Qwen/Qwen2-VL-7B-Instruct`` for the
tokenizer and the configuration. The question that the model was trained on is read from
``hpsv3/dataset/data_collator_qwen.py`` of github MizzenAI/HPSv3.

Frames are judged one by one, each resized to about 256 x 28 x 28 pixels, bicubic, sides in multiples of 28. The score
is the mean; ``deviation`` is the exponential of the head's second number, as in the authors' loss.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vpo_kit.errors import ModelError, first_line
from vpo_kit.rewards.base import RewardSpec
from vpo_kit.rewards.images import ImageReward, ImageRewardConfig
from vpo_kit.rewards.parts import vlm
from vpo_kit.rewards.parts.videoalign import plain
from vpo_kit.rewards.parts.weights import WeightsSource, check_fit, read_state, under
from vpo_kit.video import straight_through_clamp

TOKEN = "<|Reward|>"
PIXELS = 256 * 28 * 28
HUB = "the Hugging Face hub"


class HPSv3Config(ImageRewardConfig):
    weights: Path | None = None
    """The downloaded ``HPSv3.safetensors``."""
    base: Path | None = None
    """The folder of Qwen2-VL-7B-Instruct: configuration, tokenizer and processor; its weights are not read."""
    question: Path | None = None
    """The authors' ``data_collator_qwen.py``, or its text; default: that file in the folder of the weights."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """The data type of the weights."""
    chunk: int = Field(1, ge=1)
    """Frames judged at once."""


class HPSv3(ImageReward):
    """`components`: ``deviation``, the mean over the frames used."""

    Config = HPSv3Config
    aspects = ("deviation",)
    spec: ClassVar[RewardSpec] = RewardSpec(
        name="hpsv3",
        licence="MIT code and weights, Apache-2.0 base",
        source="MizzenAI/HPSv3 on the Hugging Face hub (17 GB) and Qwen/Qwen2-VL-7B-Instruct (its tokenizer)",
        scale="about -5 to 15: the mean of a preference",
        differentiable=True,
        per_segment=True,
        needs_prompt=True,
        per_frame=True,
        mean=7.0,  # published means of current image models lie from 2 to 12
        std=3.0,
    )

    @classmethod
    def locate(cls, config: Any) -> list[Path]:
        own = cast(HPSv3Config, config)
        what = "the model folder Qwen/Qwen2-VL-7B-Instruct without its weights"
        return [
            WeightsSource(reward="hpsv3", what="HPSv3.safetensors", place=HUB, size="17 GB", licence="MIT").require(
                own.weights
            ),
            WeightsSource(
                reward="hpsv3", what=what, place=HUB, size="12 MB", licence="Apache-2.0", folder=True, setting="base"
            ).require(own.base),
        ]

    def __init__(self, config: Any = None) -> None:
        from transformers import Qwen2VLModel

        super().__init__(config)
        own = cast(HPSv3Config, self.config)
        path, base = self.locate(own)
        self.question = read_question(own.question or path.with_name("data_collator_qwen.py"), own.question is not None)
        self.processor, network = vlm.load_processor(base), vlm.load_config(base, "qwen2_vl")
        self.processor.tokenizer.add_special_tokens({"additional_special_tokens": [TOKEN]})
        self.token_id = self.processor.tokenizer.convert_tokens_to_ids(TOKEN)
        state = {key: value for key, value in plain(read_state(path)).items() if not key.startswith("lm_head.")}
        head, embedding = under(state, "rm_head."), state.get("language_model.embed_tokens.weight")
        if embedding is None or self.token_id >= len(embedding):
            raise ModelError(f"{path} and the tokenizer in {base} do not belong together: {TOKEN} has no row")
        network.text_config.vocab_size = len(embedding)
        self.head = _head(head, network.text_config.hidden_size, path)
        body = {key: value for key, value in state.items() if not key.startswith("rm_head.")}
        self.model = vlm.stock_model(Qwen2VLModel, network, body, getattr(torch, own.dtype), path)

    def score_frames(self, frames: Tensor, prompts: Sequence[str] | None) -> Tensor:
        marks = (TOKEN, self.processor.video_token, self.processor.image_token)
        texts = vlm.prompts_of(prompts, len(frames), "hpsv3", marks)
        content = [
            [{"type": "image"}, {"type": "text", "text": self.question.replace("{text_prompt}", text)}]
            for text in texts
        ]
        chats = [[{"role": "user", "content": part}] for part in content]
        words = self.processor.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        batch = self.processor(
            text=words,
            images=list(self._resized(frames)),
            padding=True,
            return_tensors="pt",
            do_resize=False,
            do_rescale=False,
        ).to(frames.device)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        # One running position for text and picture alike, as the authors' call of the language model has it.
        positions = (mask.cumsum(1) - 1).clamp(min=0).expand(3, -1, -1)
        hidden = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            pixel_values=batch["pixel_values"],
            image_grid_thw=batch["image_grid_thw"],
        ).last_hidden_state
        mean, spread = self.head(hidden[ids == self.token_id].float()).unbind(1)
        return torch.stack([mean, spread.exp()], 1)

    def _resized(self, frames: Tensor) -> Tensor:
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        size = smart_resize(*frames.shape[-2:], factor=28, min_pixels=PIXELS, max_pixels=PIXELS)
        small = functional.interpolate(straight_through_clamp(frames), list(size), mode="bicubic", antialias=True)
        return straight_through_clamp(small)


def _head(state: dict[str, Tensor], width: int, path: Path) -> nn.Module:
    """Three layers to mean and log deviation, in float32. Raises `ModelError` where the weights are another head's."""
    sizes = [len(state[key]) if key in state else 0 for key in ("0.bias", "3.bias", "5.bias")]
    layers = nn.Sequential(
        nn.Linear(width, sizes[0]),
        nn.ReLU(),
        nn.Identity(),
        nn.Linear(sizes[0], sizes[1]),
        nn.ReLU(),
        nn.Linear(sizes[1], 2),
    )
    check_fit(layers, state, path, "HPSv3's head")
    layers.load_state_dict({key: value.float() for key, value in state.items()})
    return layers.requires_grad_(False)


def read_question(path: Path, given: bool) -> str:
    """What a frame is asked, with ``{text_prompt}`` and the reward token once each. Raises `ModelError`."""
    if not path.is_file() and not given:
        raise ModelError(
            f"reward 'hpsv3' needs the question it was trained on: put data_collator_qwen.py of github MizzenAI/HPSv3 "
            f"(MIT, hpsv3/dataset) into {path.parent} or give its path with --set reward.question=PATH"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read the question of HPSv3: {first_line(error)}") from None
    names = ("INSTRUCTION", "prompt_with_special_token")
    quoted = [re.search(rf'^{name}\s*=\s*"""(.*?)"""', text, re.DOTALL | re.MULTILINE) for name in names]
    question = "".join(part[1] for part in quoted if part) if all(quoted) else text
    if question.count("{text_prompt}") != 1 or question.count(TOKEN) != 1:
        raise ModelError(f"{path} does not hold the question of HPSv3: {names[0]} and {names[1]}, or their text")
    return question
