"""ConvNeXt inflated to video, in the layout of DOVER's aesthetic branch.

Sources: Liu et al., "A ConvNet for the 2020s" (arXiv 2201.03545); DOVER (arXiv 2211.04894): the stem and every second
depthwise convolution of three also reach over time (3 frames), the others are 1 x 7 x 7. Names are the checkpoint's.

Legend: ``B`` clips, ``T h w`` positions in time and space, ``C`` channels; channels last inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-6


class Block(nn.Module):
    """Depthwise convolution and an MLP over channels, scaled and residual, ``[B, T, h, w, C]``."""

    def __init__(self, width: int, hidden: int, reach: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv3d(width, width, (reach, 7, 7), padding=(reach // 2, 3, 3), groups=width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.pwconv1 = nn.Linear(width, hidden)
        self.pwconv2 = nn.Linear(hidden, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x.movedim(-1, 1)).movedim(1, -1)
        y = self.pwconv2(functional.gelu(self.pwconv1(self.norm(y))))
        return x + cast(Tensor, self.gamma * y)


class Reduction(nn.Sequential):
    """The stem (convolution, then norm) or a step down between stages (norm, then convolution)."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x.movedim(-1, 1)).movedim(1, -1) if isinstance(layer, nn.Conv3d) else layer(x)
        return x


class VideoConvNeXt(nn.Module):
    """Clips ``[B, 3, F, H, W]``, normalised, to features ``[B, F/2, H/32, W/32, C]``."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """The shape is read off the checkpoint's tensors; `KeyError` where it is another net."""
        super().__init__()
        steps: list[nn.Module] = []
        stages: list[nn.Module] = []
        width = 3
        while (kernel := f"downsample_layers.{len(steps)}.{1 if steps else 0}.weight") in state:
            wider, _, *size = state[kernel].shape
            convolution = nn.Conv3d(width, wider, (size[0], size[1], size[2]), (size[0], size[1], size[2]))
            norm = nn.LayerNorm(width if steps else wider, eps=EPSILON)
            blocks: list[Block] = []
            while (own := f"stages.{len(stages)}.{len(blocks)}.") + "gamma" in state:
                hidden, reach = len(state[own + "pwconv1.weight"]), state[own + "dwconv.weight"].shape[2]
                blocks.append(Block(wider, hidden, reach))
            steps.append(Reduction(norm, convolution) if steps else Reduction(convolution, norm))
            stages.append(nn.Sequential(*blocks))
            width = wider
        self.downsample_layers = nn.ModuleList(steps)
        self.stages = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, clips: Tensor) -> Tensor:
        x = clips.movedim(1, -1)
        for step, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(step(x))
        return cast(Tensor, self.norm(x))
