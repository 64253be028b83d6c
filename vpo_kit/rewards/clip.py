"""How well a frame fits its prompt: HPSv2 and v2.1, which people's preferences taught, and plain CLIP similarity.

Sources: HPSv2 (arXiv 2306.09341) and its published inference code; CLIP (arXiv 2103.00020). The PyPI package `hpsv2`
does not import beside current libraries; its network is open_clip's ViT-H-14, and that is what is used here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

from vpo_kit.rewards.base import RewardSpec
from vpo_kit.rewards.images import ImageRewardConfig, Resize, TextImageReward
from vpo_kit.rewards.parts.hub import HubFile
from vpo_kit.rewards.parts.openclip import OpenClip, hub_file, tag_of


class ClipConfig(ImageRewardConfig):
    model: str = "ViT-B-32"
    """An architecture that open_clip knows (`open_clip.list_models`)."""
    pretrained: str = "laion2b_s34b_b79k"
    """open_clip's tag of the weights. It also sets mean and deviation of the input; `weights` overrides the file."""


class ClipScore(TextImageReward):
    """Cosine of frame and prompt in any open_clip model."""

    Config = ClipConfig
    spec: ClassVar[RewardSpec] = RewardSpec(
        name="clip",
        licence="MIT (the default weights)",
        source="open_clip; by default laion/CLIP-ViT-B-32-laion2B-s34B-b79K on the hub",
        scale="-1 to 1, about 0.2 to 0.35: the cosine of frame and prompt",
        differentiable=True,
        per_segment=True,
        needs_prompt=True,
        per_frame=True,
        mean=0.275,  # that range taken as mean +- 2 deviations, as for HPSv2; SigLIP's cosines are much lower
        std=0.0375,
    )

    @classmethod
    def locate(cls, config: Any) -> list[Path]:
        own = cast(ClipConfig, config)
        return hub_file("clip", own.model, own.pretrained).look(own.weights)

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        own = cast(ClipConfig, self.config)
        path = own.weights or hub_file("clip", own.model, own.pretrained).find(None)
        self.network = OpenClip(own.model, path, own.resize, tag_of(own.model, own.pretrained))


class HPSConfig(ImageRewardConfig):
    model: str = "ViT-H-14"
    """The architecture of the weights, by open_clip's name."""
    resize: Resize = "pad"


class HPSv2(TextImageReward):
    """Human Preference Score v2: the cosine without the logit scale, on pictures padded to a square."""

    Config = HPSConfig
    file: ClassVar[HubFile] = HubFile(
        reward="hpsv2",
        repository="xswu/HPSv2",
        names=("HPS_v2_compressed.pt",),
        size="about 2 GB",
        licence="Apache-2.0",
    )
    spec: ClassVar[RewardSpec] = RewardSpec(
        name="hpsv2",
        licence="Apache-2.0",
        source="xswu/HPSv2 on the hub: HPS_v2_compressed.pt",
        scale="about 0.2 to 0.35: the cosine of frame and prompt in a CLIP trained on preferences",
        differentiable=True,
        per_segment=True,
        needs_prompt=True,
        per_frame=True,
        mean=0.275,  # the published range, 0.2 to 0.35, taken as mean +- 2 deviations
        std=0.0375,
    )

    @classmethod
    def locate(cls, config: Any) -> list[Path]:
        return cls.file.look(cast(HPSConfig, config).weights)

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        own = cast(HPSConfig, self.config)
        self.network = OpenClip(own.model, self.file.find(own.weights), own.resize, {})


class HPSv21(HPSv2):
    """Version 2.1: the same network, trained on more preferences."""

    file: ClassVar[HubFile] = HubFile(
        reward="hpsv2.1",
        repository="xswu/HPSv2",
        names=("HPS_v2.1_compressed.pt",),
        size="about 2 GB",
        licence="Apache-2.0",
    )
    spec: ClassVar[RewardSpec] = replace(
        HPSv2.spec, name="hpsv2.1", source="xswu/HPSv2 on the hub: HPS_v2.1_compressed.pt"
    )
