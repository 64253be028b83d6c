"""Video Swin Transformer with gated relative position bias, in the layout of the FAST-VQA and DOVER checkpoints.

Sources: Liu et al., "Video Swin Transformer" (arXiv 2106.13230), and Wu et al., "FAST-VQA" (arXiv 2207.02595), Sec. 3.3
for the gated bias (GRPB). Names of parameters are those of the published files.

Legend: ``B`` clips, ``T h w`` tokens in time and space, ``C`` channels, ``W`` windows, ``N`` tokens in a window.
The token grid must be a multiple of the window, as it is for the clips that the networks were trained on; so there is
no padding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Triple = tuple[int, int, int]

WINDOWS: dict[int, Triple] = {math.prod(2 * n - 1 for n in window): window for window in [(8, 7, 7), (4, 4, 4)]}
"""The published windows by the number of rows of their bias tables."""


class Attention(nn.Module):
    """Self-attention inside windows, ``[B, W, N, C]`` to the same."""

    def __init__(self, width: int, heads: int, window: Triple, gated: bool) -> None:
        super().__init__()
        rows = math.prod(2 * n - 1 for n in window)
        self.window, self.heads = window, heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, heads))
        if gated:
            self.fragment_position_bias_table = nn.Parameter(torch.zeros(rows, heads))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def bias(self, grid: Triple, shift: Triple) -> Tensor:
        """What is added to the logits, ``[W, heads, N, N]``: position bias, and -100 across the roll's seam."""
        table = self.relative_position_bias_table
        rows = relative_rows(self.window).to(table.device)
        bias = table[rows].permute(2, 0, 1)[None]
        places = cut(places_of(grid).to(table.device).roll([-n for n in shift], (0, 1, 2))[None], self.window)[0]
        if hasattr(self, "fragment_position_bias_table"):
            # GRPB: pairs inside one fragment take the second table. The published code gates by the distance
            # counted in fragments, so that pairs further apart extrapolate from the two tables.
            fragment = places[..., 1:] * torch.tensor(self.window[1:], device=table.device) // _sides(grid, table)
            gate = (fragment[:, None] - fragment[:, :, None]).abs().sum(-1)[:, None]
            own = self.fragment_position_bias_table[rows].permute(2, 0, 1)[None]
            bias = bias * gate + own * (1 - gate)
        if not any(shift):
            return bias.expand(len(places), -1, -1, -1)
        rolled = places < torch.tensor(shift, device=table.device)
        apart = (rolled[:, None] != rolled[:, :, None]).any(-1)[:, None]
        return bias + apart * -100.0

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        # One clip at a time: in four dimensions torch has kernels that do not keep the whole attention map.
        found = [functional.scaled_dot_product_attention(*part, attn_mask=bias) for part in zip(q, k, v, strict=True)]
        return cast(Tensor, self.proj(torch.stack(found).transpose(2, 3).flatten(3)))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(functional.gelu(self.fc1(x))))


class Block(nn.Module):
    """Attention in windows (rolled by half a window where `rolled`) and an MLP, each residual, ``[B, T, h, w, C]``."""

    def __init__(self, width: int, hidden: int, heads: int, window: Triple, gated: bool, rolled: bool) -> None:
        super().__init__()
        self.rolled = rolled
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, window, gated)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        grid, window = (x.shape[1], x.shape[2], x.shape[3]), self.attn.window
        # A dimension that one window covers is not rolled.
        half = [n // 2 if self.rolled and size > n else 0 for n, size in zip(window, grid, strict=True)]
        shift = (half[0], half[1], half[2])
        y = cut(self.norm1(x).roll([-n for n in shift], (1, 2, 3)), window)
        y = joined(self.attn(y, self.attn.bias(grid, shift)), grid, window)
        x = x + y.roll(shift, (1, 2, 3))
        return x + cast(Tensor, self.mlp(self.norm2(x)))


class Merge(nn.Module):
    """2 x 2 neighbours to one token of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, :, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return cast(Tensor, self.reduction(self.norm(torch.cat(corners, -1))))


class Stage(nn.Module):
    def __init__(self, blocks: list[Block], merge: Merge | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        if merge is not None:
            self.downsample = merge

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.downsample(x)) if hasattr(self, "downsample") else x


class PatchEmbedding(nn.Module):
    def __init__(self, width: int, patch: Triple) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, width, patch, patch)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.proj(x).permute(0, 2, 3, 4, 1)))


class VideoSwin(nn.Module):
    """Clips ``[B, 3, F, H, W]``, normalised, to features ``[B, T, h, w, C]``: F/2 and H/32 for the published nets."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """The shape is read off the checkpoint's tensors; `KeyError` where it is another net."""
        super().__init__()
        width, _, *patch = state["patch_embed.proj.weight"].shape
        self.patch_embed = PatchEmbedding(width, (patch[0], patch[1], patch[2]))
        depths = _depths(state)
        if not depths:
            raise KeyError("layers.0")
        stages = []
        for i, depth in enumerate(depths):
            first = f"layers.{i}.blocks.0."
            rows, heads = state[first + "attn.relative_position_bias_table"].shape
            hidden = len(state[first + "mlp.fc1.weight"])
            gated = first + "attn.fragment_position_bias_table" in state
            blocks = [Block(width, hidden, heads, WINDOWS[rows], gated, j % 2 == 1) for j in range(depth)]
            stages.append(Stage(blocks, Merge(width) if i + 1 < len(depths) else None))
            self.window, self.width = WINDOWS[rows], width
            width *= 2
        self.layers = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(self.width)

    def forward(self, clips: Tensor) -> Tensor:
        x = self.patch_embed(clips)
        for stage in self.layers:
            x = stage(x)
        return cast(Tensor, self.norm(x))


class QualityHead(nn.Module):
    """Two 1 x 1 x 1 convolutions: features ``[B, T, h, w, C]`` to a map of quality ``[B, T, h, w]``."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        hidden, width = state["fc_hid.weight"].shape[:2]
        self.fc_hid = nn.Conv3d(width, hidden, 1)
        self.fc_last = nn.Conv3d(hidden, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.fc_last(functional.gelu(self.fc_hid(features.movedim(-1, 1)))).squeeze(1))


def cut(x: Tensor, window: Triple) -> Tensor:
    """``[B, T, h, w, C]`` to windows ``[B, W, N, C]``."""
    (batch, time, height, width, channels), (t, h, w) = x.shape, window
    parts = x.view(batch, time // t, t, height // h, h, width // w, w, channels).permute(0, 1, 3, 5, 2, 4, 6, 7)
    return parts.reshape(batch, -1, t * h * w, channels)


def joined(x: Tensor, grid: Triple, window: Triple) -> Tensor:
    """The inverse of `cut`."""
    (time, height, width), (t, h, w) = grid, window
    parts = x.view(len(x), time // t, height // h, width // w, t, h, w, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return parts.reshape(len(x), time, height, width, -1)


def places_of(grid: Triple) -> Tensor:
    """The place ``[T, h, w, 3]`` of each token."""
    return torch.stack(torch.meshgrid(*[torch.arange(n) for n in grid], indexing="ij"), -1)


def relative_rows(window: Triple) -> Tensor:
    """``[N, N]``: the row of the bias table for each pair of tokens of a window."""
    places = places_of(window).flatten(0, 2)
    apart = places[:, None] - places[None] + torch.tensor(window) - 1
    _, h, w = window
    return (apart * torch.tensor([(2 * h - 1) * (2 * w - 1), 2 * w - 1, 1])).sum(-1)


def _sides(grid: Triple, like: Tensor) -> Tensor:
    return torch.tensor(grid[1:], device=like.device)


def _depths(state: Mapping[str, Tensor]) -> list[int]:
    """Blocks of each stage, by the names of the checkpoint."""
    found: list[int] = []
    while f"layers.{len(found)}.blocks.0.norm1.weight" in state:
        stage = f"layers.{len(found)}.blocks."
        found.append(len({key[len(stage) :].split(".")[0] for key in state if key.startswith(stage)}))
    return found
