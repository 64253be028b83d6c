"""The embedded judges: small no-reference video quality networks that score each frame of a clip.

Legend: ``B`` videos, ``F`` frames, ``C`` channels, ``h w`` feature map. Video is float ``[B, F, 3, H, W]`` in
[0, 1]. Scores are in units of the mean drop that a degradation of severity 2 (of 5) costs, and held-out clean
clips have mean 0 (`report_vqa.calibrate`). They order videos of one prompt; over contents the scale is weak.

`VQA` is trained against. `GoldVQA` is another network (colour space, activations, convolutions over time on
maps rather than on vectors), from another seed and corpus; no training run may see it, so it can tell an
improved policy from one that has learned to please `VQA`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from vpo_kit.errors import ModelError
from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, RewardSpec, Segments, enough_frames
from vpo_kit.video import straight_through_clamp


@dataclass(frozen=True)
class Shape:
    """What distinguishes one judge's network from another's."""

    widths: tuple[int, int, int]
    stem: int
    map_layers: int
    clip_layers: int
    contrast_window: int
    opponent: bool
    activation: str


VQA_SHAPE = Shape((24, 48, 64), 5, 1, 3, 7, opponent=False, activation="silu")
GOLD_SHAPE = Shape((28, 56, 96), 4, 2, 2, 11, opponent=True, activation="gelu")
WORKING_SIZE = 64


class TimeMix(nn.Module):
    """Residual block on ``[B, F, C, h, w]``: each channel filtered over three frames, then a 1 x 1 mix."""

    def __init__(self, width: int, step: int) -> None:
        super().__init__()
        self.step = step
        self.taps = nn.Parameter(torch.randn(3, width, 1, 1) * 0.5)
        self.mix = nn.Conv2d(width, width, 1)
        nn.init.normal_(self.mix.weight, std=0.5 / width**0.5)

    def forward(self, x: Tensor, act: nn.Module) -> Tensor:
        before, after = _shifted(x, -self.step), _shifted(x, self.step)
        y = before * self.taps[0] + x * self.taps[1] + after * self.taps[2]
        return x + cast(Tensor, act(self.mix(y.flatten(0, 1)))).view_as(x)


class FrameJudge(nn.Module):
    """A score for each frame, ``[B, F, 3, H, W]`` in [0, 1] to ``[B, F]``; F >= 2, H and W >= 32."""

    offset: Tensor
    unit: Tensor

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
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("unit", torch.ones(()))

    def forward(self, video: Tensor) -> Tensor:
        x = self._inputs(_resized(straight_through_clamp(video)))
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
        return cast(Tensor, (self.head(z).squeeze(-1) - self.offset) / self.unit)

    def _inputs(self, video: Tensor) -> Tensor:
        """Colour, normalised luma, first differences in colour, second in luma: ``[B, F, 8, H, W]``."""
        if self.shape.opponent:
            red, green, blue = (video - 0.5).unbind(2)
            video = torch.stack([(red + green + blue) / 3, 0.7 * (red - green), 0.4 * (red + green) - 0.8 * blue], 2)
        luma = video[:, :, :1] if self.shape.opponent else video.mean(2, keepdim=True) - 0.5
        step = video[:, 1:] - video[:, :-1]
        step = torch.cat([step[:, :1], step], 1)  # not zero, which would look like a frozen first frame
        bend = luma - 0.5 * (_shifted(luma, -1) + _shifted(luma, 1))
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


def pool(frames: Tensor) -> Tensor:
    """Frame scores ``[..., F]`` to one score: a soft minimum that does not depend on the number of frames.

    It is the mean for frames that agree and leans to the worst where they differ, so that a bad window of
    half a second is not averaged away in a long clip.
    """
    return -(torch.logsumexp(-frames, -1) - torch.log(torch.tensor(float(frames.shape[-1]))))


def _shifted(x: Tensor, step: int) -> Tensor:
    """``x[:, f + step]``, with the first and last frame repeated beyond the ends."""
    frames = torch.arange(x.shape[1], device=x.device) + step
    return x.index_select(1, frames.clamp(0, x.shape[1] - 1))


def _resized(video: Tensor) -> Tensor:
    """Shorter side to `WORKING_SIZE`, the other to the nearest multiple of 8 that keeps the proportions."""
    height, width = video.shape[-2:]
    scale = WORKING_SIZE / min(height, width)
    size = [max(WORKING_SIZE, 8 * round(n * scale / 8)) for n in (height, width)]
    if size == [height, width]:
        return video
    small = functional.interpolate(video.flatten(0, 1), size, mode="bilinear", antialias=True)
    return small.view(*video.shape[:2], *small.shape[1:])


def load_judge(shape: Shape, weights: Path) -> FrameJudge:
    """A frozen judge with the weights of a file; `ModelError` where they are missing or do not fit."""
    if not weights.is_file():
        raise ModelError(f"no weights of a judge at {weights}")
    judge = FrameJudge(shape)
    try:
        judge.load_state_dict(load_file(weights))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read the judge's weights {weights}: {str(error).splitlines()[0]}") from None
    except RuntimeError:
        raise ModelError(f"the weights {weights} are not those of this judge") from None
    return judge.requires_grad_(False).eval().to(memory_format=torch.channels_last)  # halves the time on CPUs


class VQA(Reward):
    """The embedded judge that training may use."""

    class Config(RewardConfig):
        weights: Path | None = None
        """A safetensors file written by ``vpo reward train-vqa``; the shipped one by default."""

    spec: ClassVar[RewardSpec] = RewardSpec(
        name="vqa",
        licence="Apache-2.0",
        source="trained by this project on procedural clips (vqa.safetensors)",
        scale="about -4 to 0.5: clean clips near 0, a slight flaw in a window costs 1",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
        self_contained=True,
        mean=-1.3,  # 48 sprite training clips (world.training_clips(48, 0)), 21 of them flawed: -1.27 and 1.66
        std=1.7,
    )
    shape: ClassVar[Shape] = VQA_SHAPE
    shipped: ClassVar[str] = "vqa.safetensors"

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        weights = cast(VQA.Config, self.config).weights
        self.judge = load_judge(self.shape, weights or Path(__file__).with_name(self.shipped))

    def forward(
        self, video: Tensor, prompts: Any = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        """Raises `DataError` for a single frame: there is no change to be judged."""
        enough_frames(self.spec.name, video, 2)
        # One video at a time is up to twice as fast on CPUs: a video's maps fit the cache, a batch's do not.
        size = 1 if video.device.type == "cpu" else 8
        frames = torch.cat([self.judge(part) for part in torch.split(video, size)])
        parts = None if segments is None else torch.stack([pool(frames[:, a:b]) for a, b in segments], 1)
        return RewardOutput(pool(frames), parts, {"mean_frame": frames.mean(1), "worst_frame": frames.amin(1)})


class GoldVQA(VQA):
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
        mean=-1.2,  # the same clips: -1.22 and 1.64
        std=1.6,
        for_training=False,
    )
    shape: ClassVar[Shape] = GOLD_SHAPE
    shipped: ClassVar[str] = "gold.safetensors"
