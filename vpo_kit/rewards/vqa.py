"""The embedded judges: small no-reference video quality networks that score each frame of a clip.

Legend: ``B`` videos, ``F`` frames, ``C`` channels, ``h w`` feature map. Video is float ``[B, F, 3, H, W]`` in [0, 1].

`VQA` is trained against. `GoldVQA` is another network (colour space, activations, convolutions over time on
maps rather than on vectors), from another seed and corpus; no training run may see it, so it can tell an
improved policy from one that has learned to please `VQA`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vpo_kit.rewards.base import RewardSpec
from vpo_kit.rewards.frames import FrameScorer, FramesReward, shifted


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What distinguishes one judge's network from another's."""

    widths: tuple[int, int, int]
    stem: int
    map_layers: int
    clip_layers: int
    contrast_window: int
    opponent: bool
    activation: str


VQA_SHAPE = Shape(
    widths=(24, 48, 64), stem=5, map_layers=1, clip_layers=3, contrast_window=7, opponent=False, activation="silu"
)
GOLD_SHAPE = Shape(
    widths=(28, 56, 96), stem=4, map_layers=2, clip_layers=2, contrast_window=11, opponent=True, activation="gelu"
)


class TimeMix(nn.Module):
    """Residual block on ``[B, F, C, h, w]``: each channel filtered over three frames, then a 1 x 1 mix."""

    def __init__(self, width: int, step: int) -> None:
        super().__init__()
        self.step = step
        self.taps = nn.Parameter(torch.randn(3, width, 1, 1) * 0.5)
        self.mix = nn.Conv2d(width, width, 1)
        nn.init.normal_(self.mix.weight, std=0.5 / width**0.5)

    def forward(self, x: Tensor, act: nn.Module) -> Tensor:
        before, after = shifted(x, -self.step), shifted(x, self.step)
        y = before * self.taps[0] + x * self.taps[1] + after * self.taps[2]
        return x + cast(Tensor, act(self.mix(y.flatten(0, 1)))).view_as(x)


class FrameJudge(FrameScorer):
    """Convolutions over space, then over time."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        a, b, c = shape.widths
        self.act: nn.Module = nn.SiLU() if shape.activation == "silu" else nn.GELU(approximate="tanh")
        self.stem = nn.Conv2d(8, a, shape.stem, stride=2, padding=(shape.stem - 1) // 2)
        self.down = nn.Conv2d(a, b, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(b, c, 3, stride=2, padding=1)
        self.map_layers = nn.ModuleList(TimeMix(c, 2**k) for k in range(shape.map_layers))
        self.squeeze = nn.Linear(2 * c, c)
        self.norm = nn.LayerNorm(c)
        self.clip_layers = nn.ModuleList(nn.Conv1d(c, c, 3, dilation=2**k) for k in range(shape.clip_layers))
        self.context = nn.Linear(3 * c, c)
        self.head = nn.Linear(c, 1)

    def raw(self, video: Tensor) -> Tensor:
        x = self._inputs(video)
        batch, frames = x.shape[:2]
        y = self.act(self.stem(x.flatten(0, 1)))
        y = self.act(self.deep(self.act(self.down(y))))
        y = y.unflatten(0, (batch, frames))
        for layer in self.map_layers:
            y = layer(y, self.act)
        z = self.norm(self.squeeze(torch.cat([y.mean((3, 4)), y.amax((3, 4))], -1)))
        for k, layer in enumerate(self.clip_layers):
            padded = functional.pad(z.transpose(1, 2), (2**k, 2**k), mode="replicate")
            z = z + self.act(layer(padded).transpose(1, 2))
        # A dim or missing object shows against the rest of the clip: each frame also sees mean and maximum.
        whole = [part.unsqueeze(1).expand_as(z) for part in (z.mean(1), z.amax(1))]
        z = z + self.act(self.context(torch.cat([z, *whole], -1)))
        return cast(Tensor, self.head(z).squeeze(-1))

    def _inputs(self, video: Tensor) -> Tensor:
        """Colour, normalised luma, first differences in colour, second in luma: ``[B, F, 8, H, W]``."""
        if self.shape.opponent:
            red, green, blue = (video - 0.5).unbind(2)
            video = torch.stack([(red + green + blue) / 3, 0.7 * (red - green), 0.4 * (red + green) - 0.8 * blue], 2)
        luma = video[:, :, :1] if self.shape.opponent else video.mean(2, keepdim=True) - 0.5
        step = video[:, 1:] - video[:, :-1]
        step = torch.cat([step[:, :1], step], 1)  # not zero, which would look like a frozen first frame
        bend = luma - 0.5 * (shifted(luma, -1) + shifted(luma, 1))
        edge = bend.shape[1] > 2
        bend = torch.cat([bend[:, 1:2], bend[:, 1:-1], bend[:, -2:-1]], 1) if edge else torch.zeros_like(bend)
        colour = video if self.shape.opponent else video - 0.5
        return torch.cat([2 * colour, self._contrast(luma), 6 * step, 6 * bend], 2)

    def _contrast(self, luma: Tensor) -> Tensor:
        """Luma minus its local mean, over its local deviation (MSCN coefficients, as in BRISQUE)."""
        size, flat = self.shape.contrast_window, luma.flatten(0, 1)

        def local(x: Tensor) -> Tensor:
            return functional.avg_pool2d(x, size, 1, size // 2, count_include_pad=False)

        centred = flat - local(flat)
        return (centred / (local(centred.square()) + 0.04**2).sqrt()).view_as(luma)


class VQA(FramesReward):
    """The embedded judge that training may use."""

    spec: ClassVar[RewardSpec] = RewardSpec(
        name="vqa",
        licence="Apache-2.0",
        source="trained by this project on procedural clips (vqa.safetensors)",
        scale="about -4 to 0.5: clean clips near 0, a slight flaw in a window costs 1",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
        self_contained=True,
        embedded_only=True,
        mean=-1.3,  # 48 sprite training clips (world.training_clips(48, 0)), 21 of them flawed: -1.27 and 1.66
        std=1.7,
    )
    shipped = "vqa.safetensors"

    @staticmethod
    def build() -> FrameJudge:
        return FrameJudge(VQA_SHAPE)


class GoldVQA(FramesReward):
    """The judge that training never sees; `vpo eval` reports it beside the reward."""

    spec: ClassVar[RewardSpec] = RewardSpec(
        name="gold",
        licence="Apache-2.0",
        source="trained by this project on procedural clips (gold.safetensors)",
        scale="about -4 to 0.5: clean clips near 0, a slight flaw in a window costs 1",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
        self_contained=True,
        embedded_only=True,
        mean=-1.2,  # the same clips: -1.22 and 1.64
        std=1.6,
        for_training=False,
    )
    shipped = "gold.safetensors"

    @staticmethod
    def build() -> FrameJudge:
        return FrameJudge(GOLD_SHAPE)
