"""ViCLIP: agreement of video and prompt, by a CLIP whose image tower looks at 8 frames at once.

Wang et al., InternVid, ICLR 2024 (arXiv 2307.06942). Weights: ``OpenGVLab/ViCLIP`` on the Hugging Face hub.

Frames, whole clips. Exactly 8, frame ``i F / 8`` rounded down, whatever the fps; each squashed to 224 x 224 (bilinear,
without antialiasing) and normalised with ImageNet's mean and deviation, as in the authors' demo. (The demo takes every
``F // 8``-th frame, which leaves out the end of most clips.) The prompt is cut after 32 tokens.

Segments. A segment is judged as a clip of its own; one of fewer than 8 frames is first widened to 8, with the frames
round it. The segment ``(0, F)`` scores what the clip scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, RewardSpec, Segments
from vpo_kit.rewards.parts import vlm
from vpo_kit.rewards.parts.fragments import normalised, widened
from vpo_kit.rewards.parts.weights import WeightsSource, built, read_state, under
from vpo_kit.video import straight_through_clamp

FRAMES = 8
HEAD = 64
"""Channels of an attention head, in both towers and both sizes."""


class Block(nn.Module):
    """Attention and an MLP, each residual, on ``[B, N, C]``; names as in CLIP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, max(1, width // HEAD), batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + cast(Tensor, self.mlp["c_proj"](y * torch.sigmoid(1.702 * y)))  # CLIP's quick GELU


class Blocks(nn.Module):
    def __init__(self, state: Mapping[str, Tensor], width: int) -> None:
        super().__init__()
        count = len({key.split(".")[2] for key in state if key.startswith("transformer.resblocks.")})
        self.resblocks = nn.ModuleList(Block(width) for _ in range(count))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class VideoTower(nn.Module):
    """Frames ``[B, 8, 3, H, W]``, normalised, to features ``[B, C]``; `side` is the H and W that it takes."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """The shape is read off the checkpoint's tensors; `KeyError` where it is another net."""
        super().__init__()
        width, _, _, patch, _ = state["conv1.weight"].shape
        places = len(state["positional_embedding"])
        self.side = patch * round((places - 1) ** 0.5)
        self.conv1 = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch), bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(places, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, FRAMES, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Blocks(state, width)
        self.proj = nn.Parameter(torch.zeros(width, state["proj"].shape[1]))

    def forward(self, video: Tensor) -> Tensor:
        tokens = self.conv1(video.transpose(1, 2)).flatten(3).permute(0, 3, 2, 1)  # B, place, frame, C
        tokens = tokens + self.positional_embedding[1:, None] + self.temporal_positional_embedding
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(tokens), 1, -1)
        x = self.transformer(self.ln_pre(torch.cat([first, tokens.flatten(1, 2)], 1)))
        return cast(Tensor, self.ln_post(x[:, 0]) @ self.proj)


class TextTower(nn.Module):
    """Tokens ``[B, L]`` to features ``[B, C]``, read at each row's end mark, which has the largest number."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        words, width = state["token_embedding.weight"].shape
        self.length = len(state["positional_embedding"])
        self.token_embedding = nn.Embedding(words, width)
        self.positional_embedding = nn.Parameter(torch.zeros(self.length, width))
        self.transformer = Blocks(state, width)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, state["text_projection"].shape[1]))

    def forward(self, tokens: Tensor) -> Tensor:
        later = torch.ones(self.length, self.length, dtype=torch.bool, device=tokens.device).triu(1)
        x = self.transformer(self.token_embedding(tokens) + self.positional_embedding, later)
        ends = x[torch.arange(len(x), device=x.device), tokens.argmax(1)]
        return cast(Tensor, self.ln_final(ends) @ self.text_projection)


class ViCLIP(Reward):
    """The score is the cosine of the two features."""

    class Config(RewardConfig):
        weights: Path | None = None
        """The published ``.pth`` file, or its tensors as safetensors."""
        batch_size: int = Field(4, ge=1)
        """Videos judged at once."""

    spec: ClassVar[RewardSpec] = RewardSpec(
        name="viclip",
        licence="MIT",
        source="OpenGVLab/ViCLIP on the Hugging Face hub (1.7 GB)",
        scale="-1 to 1, cosine of video and prompt",
        differentiable=True,
        per_segment=True,
        needs_prompt=True,
    )

    @classmethod
    def locate(cls, config: Any) -> list[Path]:
        place = "OpenGVLab/ViCLIP on the Hugging Face hub"
        source = WeightsSource(
            reward="viclip", what="ViClip-InternVid-10M-FLT.pth", place=place, size="1.7 GB", licence="MIT"
        )
        return [source.require(cast(ViCLIP.Config, config).weights)]

    def __init__(self, config: Any = None) -> None:
        from open_clip import SimpleTokenizer

        super().__init__(config)
        (path,) = self.locate(self.config)
        state = read_state(path)
        self.video = built(VideoTower, under(state, "vision_encoder."), path, "ViCLIP")
        self.text = built(TextTower, under(state, "text_encoder."), path, "ViCLIP")
        self.tokenize = SimpleTokenizer(context_length=self.text.length)

    def forward(
        self, video: Tensor, prompts: Any = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        texts = vlm.prompts_of(prompts, len(video), "viclip", ())
        video, count = straight_through_clamp(video), video.shape[1]
        spans = [(0, count), *(widened(segment, FRAMES, count) for segment in segments or [])]
        size = cast(ViCLIP.Config, self.config).batch_size
        score = vlm.judged(video, texts, spans, spread, self._agreement, size).squeeze(2)
        return RewardOutput(score[:, 0], None if segments is None else score[:, 1:])

    def _agreement(self, video: Tensor, prompts: list[str]) -> Tensor:
        side = self.video.side
        small = functional.interpolate(video.flatten(0, 1), (side, side), mode="bilinear")
        seen = self.video(normalised(small).view(len(video), FRAMES, 3, side, side))
        read = self.text(self.tokenize(prompts).to(video.device))
        return functional.cosine_similarity(seen, read)[:, None]


def spread(count: int) -> Tensor:
    """Indices of 8 frames, evenly from the first; of a shorter clip some twice."""
    return torch.arange(FRAMES) * count // FRAMES
