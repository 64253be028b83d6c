"""What clips are to diversity and to the distances between sets of clips: one vector for each.

Legend: ``B`` videos, ``F`` frames, ``D`` features. Clips are float ``[B, F, 3, H, W]`` in [0, 1].

No network that FVD is usually computed with (I3D) is in stock libraries, so none of the numbers here is the FVD of a
paper. A network of one's own is a class: ``--features package.module:Class``, or an entry point of `vpo_kit.features`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from vpo_kit import files
from vpo_kit.errors import ConfigError, DataError, first_line
from vpo_kit.evaluation.consistency import Dino, embed
from vpo_kit.registry import Registry
from vpo_kit.rewards.vqa import GoldVQA


class ClipFeatures(ABC, nn.Module):
    """Clips to vectors. A new one is a class that can be made without arguments."""

    name: ClassVar[str]

    @abstractmethod
    def forward(self, video: Tensor, fps: float) -> Tensor:
        """``[B, F, 3, H, W]`` to ``[B, D]``."""


class JudgeFeatures(ClipFeatures):
    """The last layer but one of the embedded held-out judge, averaged over the frames, D = 96.

    A network that tells flaws apart and has seen procedural clips alone: it knows little of what is shown.
    """

    name = "judge"

    def __init__(self) -> None:
        super().__init__()
        self.judge = GoldVQA().judge

    def forward(self, video: Tensor, fps: float) -> Tensor:
        seen: list[Tensor] = []
        head = self.judge.get_submodule("head")
        hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean(1)))
        try:
            for clip in torch.split(video, 1):
                self.judge(clip)
        finally:
            hook.remove()
        return torch.cat(seen)


class PixelFeatures(ClipFeatures):
    """Mean colours on a grid of 4 x 4 in 4 stretches of time, D = 192: layout, colour and coarse motion.

    Scaled so that the Euclidean distance of two clips is the root of the mean square over the grid, from 0 to 1.
    """

    name = "pixels"

    def forward(self, video: Tensor, fps: float) -> Tensor:
        grid: Tensor = functional.adaptive_avg_pool3d(video.float().clamp(0, 1).transpose(1, 2), 4).flatten(1)
        scaled: Tensor = grid / grid.shape[1] ** 0.5
        return scaled


class DinoFeatures(ClipFeatures):
    """DINO's class tokens, each of length 1, averaged over the frames: what is shown, and nothing of its order."""

    name = "dino"

    def __init__(self, dino: Dino) -> None:
        super().__init__()
        self.dino = dino

    def forward(self, video: Tensor, fps: float) -> Tensor:
        return functional.normalize(embed(video, self.dino), dim=-1).mean(1)


FEATURES = Registry(
    "feature extractor",
    "vpo_kit.features",
    {cls.name: f"vpo_kit.evaluation.features:{cls.__name__}" for cls in (JudgeFeatures, PixelFeatures, DinoFeatures)},
)


def check(name: str, *, has_dino: bool) -> type[ClipFeatures]:
    """The class behind a name. Raises `ConfigError` for an unknown one, or for ``dino`` without its weights."""
    kind = FEATURES.load(name)
    if not (isinstance(kind, type) and issubclass(kind, ClipFeatures)):
        raise ConfigError(f"{name} is no feature extractor: it must be a subclass of ClipFeatures")
    if kind is DinoFeatures and not has_dino:
        raise ConfigError("--features dino needs its weights: give --dino with a model folder or hub id")
    return kind


def load(name: str, dino: Dino | None, device: torch.device) -> ClipFeatures:
    """Features by name, on `device`. Raises `ConfigError`."""
    kind = check(name, has_dino=dino is not None)
    made = DinoFeatures(dino) if dino is not None and kind is DinoFeatures else kind()
    return made.eval().to(device)


def diversity(features: Tensor, groups: Sequence[int]) -> list[float]:
    """Each video's diversity, of features ``[N, D]``: its mean Euclidean distance to the others of its prompt: all
    together, the mean over all pairs. Every prompt needs two videos or more.
    """
    index = torch.tensor(groups)
    found = torch.empty(len(features), dtype=torch.float64)
    for group in sorted(set(groups)):
        rows = (index == group).nonzero().flatten()
        apart = torch.cdist(
            features[rows].double(), features[rows].double(), compute_mode="donot_use_mm_for_euclid_dist"
        )
        found[rows] = apart.sum(1) / (len(rows) - 1)
    values: list[float] = found.tolist()
    return values


def kept(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """The features in `path`, made and written there first where it does not exist. Raises `OutputError`."""
    if path.is_file():
        try:
            known: Tensor = load_file(path)["features"]
            return known
        except (OSError, SafetensorError, KeyError) as error:
            raise DataError(f"{path} cannot be read, delete it: {first_line(error)}") from error
    found = make().float().cpu()
    files.write_tensors(path, {"features": found})
    return found
