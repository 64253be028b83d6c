"""Subject and background consistency: how alike the frames of a clip are to an image network.

Legend: ``B`` videos, ``F`` frames, ``N`` frames of all videos together, ``D`` features. Definition as in VBench (Huang
et al., CVPR 2024): features of DINO's class token for the subject, CLIP's image features for the background; each frame
against the one before and against the first. Without weights there is no number: nothing stands in for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from vpo_kit.errors import ModelError, first_line
from vpo_kit.measures import Metric
from vpo_kit.rewards.base import Reward
from vpo_kit.rewards.images import TextImageReward

SIDE = 224
"""The shorter side of what the network sees, as in VBench."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = {
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
}
"""A model folder's ``model_type`` and the class of transformers that reads it; the first DINO is a ``vit``."""
CHUNK = 32
"""Frames that go through the network at once."""

Embed = Callable[[Tensor], Tensor]
"""Frames ``[N, 3, H, W]`` in [0, 1] to features ``[N, D]``."""


class Dino(nn.Module):
    """A DINO, DINOv2 or DINOv3 vision transformer from a model folder or hub id, frozen.

    Called with frames ``[N, 3, H, W]`` in [0, 1] it gives the class token after the last norm, ``[N, D]``. Raises
    `ModelError` for what is not there, does not load, or is another kind of model.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, source: str) -> None:
        super().__init__()
        self.network, self.patch = _load(source)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        scale = SIDE / min(frames.shape[-2:])
        size = [max(1, round(side * scale / self.patch)) * self.patch for side in frames.shape[-2:]]
        fitted = functional.interpolate(frames.to(self.mean), size, mode="bilinear", antialias=True)
        more = {"interpolate_pos_encoding": True} if self.network.config.model_type == "vit" else {}
        found = self.network((fitted - self.mean) / self.std, **more).last_hidden_state[:, 0]
        return cast(Tensor, found)


def _load(source: str) -> tuple[Any, int]:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        if config.model_type not in KINDS:
            raise ModelError(f"--dino {source} is a {config.model_type} model: {', '.join(KINDS)} can be read")
        kind = getattr(transformers, KINDS[config.model_type])
        more = {"add_pooling_layer": False} if config.model_type == "vit" else {}
        network, info = kind.from_pretrained(source, output_loading_info=True, **more)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"--dino {source} cannot be loaded ({first_line(error)}): give a model folder such as a download of "
            "facebook/dino-vitb16 (0.3 GB, Apache-2.0)"
        ) from None
    if info["missing_keys"]:
        raise ModelError(f"--dino {source} lacks weights: {min(info['missing_keys'])}")
    return network.requires_grad_(False).eval(), int(config.patch_size)


def embed(video: Tensor, network: Embed) -> Tensor:
    """Features ``[B, F, D]`` of every frame of ``[B, F, 3, H, W]``."""
    frames = video.flatten(0, 1).float().clamp(0, 1)
    found = torch.cat([network(part) for part in torch.split(frames, CHUNK)]).float()
    return found.view(*video.shape[:2], -1)


def consistency(features: Tensor) -> Tensor:
    """``[B, F, D]`` to ``[B]``: mean over the frames from the second of ``(cos(previous) + cos(first)) / 2``.

    A negative cosine counts as 0, as in VBench; F from 2.
    """
    unit = functional.normalize(features, dim=-1)
    previous = (unit[:, 1:] * unit[:, :-1]).sum(-1).clamp_min(0)
    first = (unit[:, 1:] * unit[:, :1]).sum(-1).clamp_min(0)
    return (previous + first).mean(1) / 2


class Consistency:
    """Subject consistency where DINO is given, and background consistency where ``clip`` is a judge."""

    metrics: ClassVar[Sequence[Metric]] = (
        Metric(
            name="subject_consistency",
            group="over time",
            direction="higher",
            unit="cosine",
            about="DINO features against first and last frame",
            needs=("dino",),
        ),
        Metric(
            name="background_consistency",
            group="over time",
            direction="higher",
            unit="cosine",
            about="the same with CLIP features",
            needs=("clip",),
        ),
    )

    def __init__(self, dino: Dino | None, judges: Sequence[Reward]) -> None:
        self._networks: dict[str, Embed] = {"subject_consistency": dino} if dino is not None else {}
        for judge in judges:
            if judge.spec.name == "clip" and isinstance(judge, TextImageReward):
                self._networks["background_consistency"] = judge.network.embed_frames

    @torch.no_grad()
    def __call__(self, video: Tensor, prompts: Sequence[str], fps: float) -> dict[str, list[float]]:
        """The metrics of ``[B, F, 3, H, W]`` by name; none of a clip of one frame."""
        if video.shape[1] < 2:
            return {}
        return {name: consistency(embed(video, network)).tolist() for name, network in self._networks.items()}
