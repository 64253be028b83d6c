"""Clips of a camera over photographs, with things that move across them, and cut-outs of footage.

Shapes: a clip is float ``[F, 3, H, W]`` in [0, 1], first drawn at twice its size, so that a flaw that displaces pixels
(`flaws.slow_warp`) leaves no blur by which it could be told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.natural.sources import Material

Array = NDArray[Any]
Rng = np.random.Generator
Size = tuple[int, int]


@dataclass(frozen=True)
class Clip:
    """`fine` is ``[F, 3, 2H, 2W]``."""

    fine: Tensor

    @property
    def video(self) -> Tensor:
        return functional.avg_pool2d(self.fine, 2)


def draw(material: Material, rng: Rng, frames: int, size: Size, footage: float = 0.35) -> Clip:
    """A clip of `frames` frames; of footage with that share, where there is any."""
    if material.footage and rng.random() < footage:
        return from_footage(material, rng, frames, size)
    return from_photos(material, rng, frames, size)


def from_photos(material: Material, rng: Rng, frames: int, size: Size) -> Clip:
    """A camera that pans, sways, zooms and turns (or, once in ten, stands still); up to two things in front."""
    canvas = material.photos[int(rng.integers(len(material.photos)))]
    height, width = 2 * size[0], 2 * size[1]
    most = 0.95 * min(canvas.shape[1] / height, canvas.shape[2] / width)
    zoom = min(most, rng.uniform(min(0.75, most), max(0.75, most)))
    moves = rng.random() > 0.1
    speed = moves * height * zoom * math.exp(rng.uniform(math.log(0.003), math.log(0.04)))
    time = np.arange(frames) - (frames - 1) / 2
    path = time[:, None] * speed * _direction(rng) * (1 + rng.normal(0, 0.02) * (rng.random() < 0.5) * time[:, None])
    if moves and rng.random() < 0.4:
        path = path + _sway(rng, frames, speed * rng.uniform(0.5, 3), rng.uniform(8, 24))
    zooms = zoom * np.exp(rng.normal(0, 0.006) * time * (rng.random() < 0.5) * moves)
    turns = rng.normal(0, 0.01) * time * (rng.random() < 0.3) * moves + rng.normal(0, 0.05)
    room = [
        _place(rng, side, reach, need * zoom)
        for side, reach, need in zip(canvas.shape[:0:-1], np.abs(path).max(0), (width, height), strict=True)
    ]
    fine = _view(canvas, path + np.array(room), zooms, turns, (height, width))
    for _ in range(int(rng.choice([0, 0, 1, 1, 2]))):
        thing = material.photos[int(rng.integers(len(material.photos)))]
        fine = _in_front(fine, thing, rng)
    return Clip(fine)


def from_footage(material: Material, rng: Rng, frames: int, size: Size) -> Clip:
    """Frames in a row (or every second one) of a cut-out that moves and holds no cut."""
    video = material.footage[int(rng.integers(len(material.footage)))]
    for _ in range(20):
        stride = int(rng.choice([1, 1, 2])) if len(video) > 2 * frames else 1
        start = int(rng.integers(0, len(video) - frames * stride))
        part = video[start : start + frames * stride : stride].float() / 255
        change = part.diff(dim=0).abs().mean((1, 2, 3))
        if change.max() < 6 * change.median() + 0.016 and change.median() > 0.001:
            break
    scale = min(part.shape[-2] / size[0], part.shape[-1] / size[1])
    scale = rng.uniform(min(1.0, scale), max(1.0, scale)) if scale > 1 else scale
    height, width = (min(whole, round(side * scale)) for whole, side in zip(part.shape[-2:], size, strict=True))
    top, left = (int(rng.integers(0, a - b + 1)) for a, b in zip(part.shape[-2:], (height, width), strict=True))
    part = part[:, :, top : top + height, left : left + width]
    return Clip(functional.interpolate(part, (2 * size[0], 2 * size[1]), mode="bicubic", antialias=True).clamp(0, 1))


def _view(canvas: Tensor, centres: Array, zooms: Array, turns: Array, size: Size) -> Tensor:
    """``[F, 3, *size]``: pixels of the canvas round `centres` ``[F, 2]`` (x, y), `zooms` canvas pixels apart."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    frames = []
    source = canvas[None].float() / 255
    for (cx, cy), zoom, turn in zip(centres, zooms, turns, strict=True):
        cos, sin = math.cos(turn) * zoom, math.sin(turn) * zoom
        across, down = cx + cos * x - sin * y, cy + sin * x + cos * y
        grid = torch.stack([across * 2 / (canvas.shape[2] - 1) - 1, down * 2 / (canvas.shape[1] - 1) - 1], -1)
        frames.append(functional.grid_sample(source, grid[None].float(), padding_mode="reflection", align_corners=True))
    return torch.cat(frames)


def _in_front(fine: Tensor, thing: Tensor, rng: Rng) -> Tensor:
    """A soft-edged part of another photograph moves over the clip."""
    frames, _, height, width = fine.shape
    zoom = rng.uniform(0.5, 1.2) * min(1.0, min(thing.shape[1:]) / height)
    radius = rng.uniform(0.08, 0.25) * height
    speed = height * math.exp(rng.uniform(math.log(0.004), math.log(0.035)))
    time = np.arange(frames) - (frames - 1) / 2
    path = rng.uniform(-0.3, 0.3, 2) * np.array([width, height]) + time[:, None] * speed * _direction(rng)
    if rng.random() < 0.5:
        path = path + _sway(rng, frames, speed * rng.uniform(0.5, 2), rng.uniform(8, 20))
    middle = np.array([thing.shape[2], thing.shape[1]]) / 2
    drawn = _view(thing, middle - path * zoom, np.full(frames, zoom), np.zeros(frames), (height, width))
    mask = blobs(rng, path + np.array([width, height]) / 2, radius, rng.normal(0, 0.03), (height, width), soft=2.0)
    return fine + (drawn - fine) * mask


def blobs(rng: Rng, centres: Array, radius: float, spin: float, size: Size, soft: float) -> Tensor:
    """Masks ``[F, 1, *size]`` of one wavy outline round `centres` ``[F, 2]`` (x, y)."""
    waves = rng.normal(0, 0.12, (4, 2))
    y, x = torch.meshgrid(torch.arange(size[0]).float(), torch.arange(size[1]).float(), indexing="ij")
    masks = []
    for f, (cx, cy) in enumerate(centres):
        angle = torch.atan2(y - cy, x - cx) + spin * f
        outline = 1 + sum(
            a * torch.cos((k + 2) * angle) + b * torch.sin((k + 2) * angle) for k, (a, b) in enumerate(waves)
        )
        masks.append((0.5 + (radius * outline - torch.hypot(x - cx, y - cy)) / soft).clamp(0, 1))
    return torch.stack(masks)[:, None].float()


def _direction(rng: Rng) -> Array:
    angle = rng.uniform(0, 2 * math.pi)
    return np.array([math.cos(angle), math.sin(angle)])


def _sway(rng: Rng, frames: int, size: float, period: float) -> Array:
    """A smooth path ``[F, 2]`` round 0."""
    time = np.arange(frames)
    waves = [
        size
        * rng.normal(size=2)[:, None]
        * np.sin(2 * np.pi * time / (period * rng.uniform(0.6, 1.6)) + rng.uniform(0, 6))
        for _ in range(int(rng.integers(1, 3)))
    ]
    return sum(waves).T


def _place(rng: Rng, side: int, reach: float, need: float) -> float:
    low, high = need / 2 + reach, side - need / 2 - reach
    return float(rng.uniform(low, high)) if low < high else side / 2
