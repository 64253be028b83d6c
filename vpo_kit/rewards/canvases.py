"""What a camera of the second corpus looks at: mosaics and strokes of a brush.

Shapes: a canvas is float32 ``[3, size, size]`` in [0, 1]; it depends on ``(seed, index)`` alone. Both have edges at all
angles and areas of all sizes, as dead leaves have, but no discs and no 1/f texture.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


@functools.lru_cache(maxsize=640)
def cells(seed: int, index: int, size: int) -> Tensor:
    """Voronoi cells of two scales, shaded towards their edges."""
    rng = np.random.default_rng([seed, 15_485, index])
    places = rng.uniform(0, size, (int(rng.integers(25, 90)), 2))
    clusters = rng.integers(0, int(rng.integers(5, 14)), len(places))
    palette = rng.uniform(0.05, 0.95, (14, 3))
    colours = np.clip(palette[clusters] + rng.normal(0, 0.05, (len(places), 3)), 0.02, 0.98)
    y, x = np.mgrid[0:size, 0:size] + 0.5
    away = np.hypot(x[..., None] - places[:, 0], y[..., None] - places[:, 1])
    nearest = np.sort(away, 2)[..., :2]
    edge = np.clip((nearest[..., 1] - nearest[..., 0]) / rng.uniform(1.5, 5.0), 0, 1)
    shade = 1 - rng.uniform(0.1, 0.7) * (1 - edge)
    return _tensor(colours[away.argmin(2)] * shade[..., None])


@functools.lru_cache(maxsize=640)
def strokes(seed: int, index: int, size: int) -> Tensor:
    """Straight strokes of many widths over a slope of colour."""
    rng = np.random.default_rng([seed, 32_452, index])
    y, x = np.mgrid[0:size, 0:size] + 0.5
    angle = rng.uniform(0, 2 * np.pi)
    slope = 0.5 + (np.cos(angle) * (x - size / 2) + np.sin(angle) * (y - size / 2)) / (2 * size)
    first, second = rng.uniform(0.1, 0.9, (2, 3))
    picture = first + (second - first) * slope[..., None]
    palette = rng.uniform(0.02, 0.98, (int(rng.integers(3, 8)), 3))
    for _ in range(int(rng.integers(40, 130))):
        start, turn = rng.uniform(-10, size + 10, 2), rng.uniform(0, 2 * np.pi)
        cover = _stroke(x - start[0], y - start[1], turn, rng.uniform(15, 90), 0.8 + rng.gamma(1.5, 1.6))
        colour = np.clip(palette[int(rng.integers(len(palette)))] + rng.normal(0, 0.08, 3), 0.02, 0.98)
        picture = picture + (colour - picture) * cover[..., None]
    return _tensor(picture)


def _stroke(x: Array, y: Array, turn: float, length: float, width: float) -> Array:
    """How far each pixel is covered by a stroke from the origin."""
    along = np.clip(x * np.cos(turn) + y * np.sin(turn), 0, length)
    cover: Array = np.clip(0.5 + width - np.hypot(x - along * np.cos(turn), y - along * np.sin(turn)), 0, 1)
    return cover


def _tensor(picture: Array) -> Tensor:
    return torch.from_numpy(np.clip(picture, 0, 1).astype(np.float32)).permute(2, 0, 1).contiguous()
