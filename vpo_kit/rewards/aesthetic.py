"""LAION's improved aesthetic predictor, version 2: how people would rate a picture's looks, without a prompt.

Source: christophschuhmann/improved-aesthetic-predictor on GitHub. Five linear layers on the normalised features of
OpenAI's CLIP-L/14; the published training has no activations between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from torch.nn import functional

from vpo_kit.rewards.base import RewardSpec
from vpo_kit.rewards.images import ImageReward, ImageRewardConfig
from vpo_kit.rewards.parts.hub import HubFile
from vpo_kit.rewards.parts.openclip import OpenClip, hub_file, tag_of
from vpo_kit.rewards.parts.weights import built, read_state

HEAD = HubFile(
    reward="aesthetic",
    repository="trl-lib/ddpo-aesthetic-predictor",
    names=("aesthetic-model.pth",),
    size="about 4 MB; LAION's sac+logos+ava1-l14-linearMSE.pth does as well",
    licence="Apache-2.0",
)
TAG = "openai"


class AestheticConfig(ImageRewardConfig):
    """`weights` is the small head; the CLIP below it has a file of its own."""

    clip_weights: Path | None = None
    """The CLIP below the head; by default the published one, from the hub's cache or downloaded."""
    model: str = "ViT-L-14-quickgelu"
    """OpenAI's CLIP-L/14 by open_clip's name: the published head was trained on its features and fits no other."""


class Aesthetic(ImageReward):
    Config = AestheticConfig
    spec: ClassVar[RewardSpec] = RewardSpec(
        name="aesthetic",
        licence="Apache-2.0 (head), MIT (CLIP-L/14)",
        source="LAION's sac+logos+ava1-l14-linearMSE.pth on OpenAI's CLIP-L/14",
        scale="1 to 10, how people would rate the looks",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
        per_frame=True,
        # LAION's own subsets of 2.3 billion web pictures: 600 million from 5, 12 million from 6; a normal that fits
        mean=4.7,
        std=0.5,
    )

    @classmethod
    def locate(cls, config: Any) -> list[Path]:
        own = cast(AestheticConfig, config)
        return HEAD.look(own.weights) + hub_file("aesthetic", own.model, TAG, "clip_weights").look(own.clip_weights)

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        own = cast(AestheticConfig, self.config)
        head = HEAD.find(own.weights)
        clip = own.clip_weights or hub_file("aesthetic", own.model, TAG, "clip_weights").find(None)
        self.network = OpenClip(own.model, clip, own.resize, tag_of(own.model, TAG))
        self.head = built(AestheticHead, read_state(head), head, "the aesthetic head v2").requires_grad_(False)

    def score_frames(self, frames: Tensor, prompts: Sequence[str] | None) -> Tensor:
        return cast(Tensor, self.head(functional.normalize(self.network.embed_frames(frames), dim=-1)))


class AestheticHead(nn.Module):
    """Features ``[N, D]`` to ``[N]``, D being 768. Layers are numbered as published: the gaps were dropouts."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        widths = [state["layers.0.weight"].shape[1], 1024, 128, 64, 16, 1]
        names = ("0", "2", "4", "6", "7")
        layers = zip(names, pairwise(widths), strict=True)
        self.layers = nn.ModuleDict({name: nn.Linear(a, b) for name, (a, b) in layers})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values():
            x = layer(x)
        return x.squeeze(-1)
