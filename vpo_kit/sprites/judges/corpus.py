"""Clean procedural clips for training the embedded judges: dead leaves, textures and sprites that move.

Shapes: a clip is float32 ``[F, 3, H, W]`` in [0, 1]; times are frames, positions pixels.

A clip is not only pixels: it can be drawn again at other times, with its main object fainter or shifted. So
an object can fade, vanish or shake, and motion can slow down, without any interpolation of pixels. Drawn ``i``
depends on ``(seed, i)`` alone.

Dead leaves follow Lee, Mumford and Huang (2001): occluding discs with power-law radii have the statistics of
photographs. A judge trained on them carries over to photographs; one trained on value noise did not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vpo_kit.rewards import canvases
from vpo_kit.rewards.degrade.drawn import Array, Drawn, Redraw, Rng
from vpo_kit.sprites import world

SIZE, NUM_FRAMES = world.SIZE, world.NUM_FRAMES
NUM_CANVASES, CANVAS = 160, 128
FAMILIES: dict[str, float] = {"sprite": 0.42, "leaves": 0.40, "texture": 0.18}
OTHER_FAMILIES: dict[str, float] = {"sprite": 0.5, "cells": 0.25, "strokes": 0.25}
"""The families of a second corpus, which shares with the first only the world that it is for."""


def clip(
    seed: int,
    index: int,
    num_frames: int = NUM_FRAMES,
    family: str | None = None,
    families: Mapping[str, float] = FAMILIES,
) -> Drawn:
    """Clean clip number `index` of the corpus `seed`, of one of `families` with their shares, or of `family`."""
    rng = np.random.default_rng([seed, index])
    drawn = str(rng.choice(list(families), p=list(families.values())))
    family = family or drawn
    redraw: Redraw = _MAKERS[family](seed, rng)
    return Drawn(redraw(np.arange(num_frames, dtype=np.float64)), redraw, family)


def _sprite(seed: int, rng: Rng) -> Redraw:
    """A scene of the sprite world (both sides of its split), without flaws: `world.render`, at any time."""
    scene = _scenes()[int(rng.integers(len(_scenes())))]
    radius = rng.uniform(7.0, 9.0)
    path = world.draw_path(scene, radius, rng)
    fore = np.asarray(world.COLOURS[scene.colour])[None, :, None, None]
    back = np.asarray(world.BACKGROUNDS[scene.background])[None, :, None, None] * rng.uniform(0.92, 1.06)

    def redraw(time: Array, opacity: Array | None = None, shift: Array | None = None) -> Tensor:
        frames = np.arange(len(path))
        centres = np.stack([np.interp(time, frames, path[:, k]) for k in (0, 1)], 1)
        cover = world.coverage(scene.shape, centres if shift is None else centres + shift, radius)
        if opacity is not None:
            cover = cover * opacity[:, None, None]
        return torch.from_numpy((back + (fore - back) * cover[:, None]).astype(np.float32)).clamp(0, 1)

    return redraw


def _leaves(seed: int, rng: Rng) -> Redraw:
    """A camera over dead leaves, with one to three objects that move on their own."""
    return _over(_canvas(seed, int(rng.integers(NUM_CANVASES))), rng)


def _cells(seed: int, rng: Rng) -> Redraw:
    """The same over a mosaic."""
    return _over(canvases.cells(seed, int(rng.integers(NUM_CANVASES)), CANVAS), rng)


def _strokes(seed: int, rng: Rng) -> Redraw:
    """The same over strokes of a brush."""
    return _over(canvases.strokes(seed, int(rng.integers(NUM_CANVASES)), CANVAS), rng)


def _over(canvas: Tensor, rng: Rng) -> Redraw:
    camera = _Camera.draw(rng, still=0.35)
    mean = canvas.mean((1, 2)).numpy()
    objects = [_Object.draw(rng, mean) for _ in range(int(rng.integers(1, 4)))]
    return functools.partial(_compose, canvas, camera, objects)


def _texture(seed: int, rng: Rng) -> Redraw:
    """A drifting, turning 1/f texture, with one object."""
    power = rng.uniform(0.8, 1.6)
    canvas = _pink(rng, CANVAS, power)[None] * torch.from_numpy(rng.normal(0, 0.12, (3, 1, 1))).float()
    canvas = canvas + _pink(rng, CANVAS, power)[None] * rng.uniform(0.05, 0.16)
    canvas = (canvas + torch.from_numpy(rng.uniform(0.25, 0.7, (3, 1, 1))).float()).clamp(0, 1)
    return functools.partial(
        _compose, canvas, _Camera.draw(rng, still=0.1), [_Object.draw(rng, canvas.mean((1, 2)).numpy())]
    )


_MAKERS: dict[str, Callable[[int, Rng], Redraw]] = {
    "sprite": _sprite,
    "leaves": _leaves,
    "texture": _texture,
    "cells": _cells,
    "strokes": _strokes,
}


@dataclass(frozen=True, kw_only=True)
class _Camera:
    """A smooth path of the view over the canvas: pan, zoom, turn and a slow sway."""

    velocity: Array
    zoom: float
    turn: float
    sway: Array
    scale: float

    @staticmethod
    def draw(rng: Rng, still: float) -> _Camera:
        scale = rng.uniform(0.75, 1.1)
        if rng.random() < still:
            return _Camera(velocity=np.zeros(2), zoom=0.0, turn=0.0, sway=np.zeros(2), scale=scale)
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 2.6)
        zoom, turn = rng.normal(0, 0.006), rng.normal(0, 0.008) * (rng.random() < 0.4)
        velocity = speed * np.array([np.cos(angle), np.sin(angle)])
        return _Camera(
            velocity=velocity, zoom=zoom, turn=turn, sway=rng.normal(0, 1.0, 2) * (rng.random() < 0.3), scale=scale
        )

    def view(self, canvas: Tensor, time: Array) -> Tensor:
        """``[F, 3, SIZE, SIZE]`` cut from the canvas ``[3, CANVAS, CANVAS]``."""
        centred = time - (NUM_FRAMES - 1) / 2
        shift = centred[:, None] * self.velocity + np.sin(0.5 * centred)[:, None] * self.sway
        scale = self.scale * np.exp(self.zoom * centred) * SIZE / CANVAS
        cos, sin = np.cos(self.turn * centred) * scale, np.sin(self.turn * centred) * scale
        theta = np.stack([cos, -sin, shift[:, 0] * 2 / CANVAS, sin, cos, shift[:, 1] * 2 / CANVAS], 1)
        maps = torch.from_numpy(theta.reshape(-1, 2, 3).astype(np.float32))
        grid = functional.affine_grid(maps, [len(time), 3, SIZE, SIZE], align_corners=False)
        many = canvas[None].expand(len(time), -1, -1, -1)
        return functional.grid_sample(many, grid, padding_mode="reflection", align_corners=False)


@dataclass(frozen=True, kw_only=True)
class _Object:
    """A blob ``r(angle) = radius (1 + sum of cosines)``, shaded and striped, on a smooth path."""

    radius: float
    waves: Array
    colour: Array
    stripes: Array
    start: Array
    velocity: Array
    sway: Array

    @staticmethod
    def draw(rng: Rng, behind: Array) -> _Object:
        colour = rng.uniform(0, 1, 3)
        while np.abs(colour - behind).max() < 0.35:  # an object that cannot be seen cannot be missed
            colour = rng.uniform(0, 1, 3)
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 2.8)
        stripes = np.concatenate([rng.normal(0, 0.5, 2), rng.uniform(0, 0.3, 1), rng.normal(0, 0.02, 2)])
        velocity = speed * np.array([np.cos(angle), np.sin(angle)])
        start = SIZE / 2 + rng.uniform(-12, 12, 2)
        return _Object(
            radius=rng.uniform(6, 13),
            waves=rng.normal(0, 0.1, (3, 2)),
            colour=colour,
            stripes=stripes,
            start=start,
            velocity=velocity,
            sway=rng.normal(0, 1.5, 2),
        )

    def over(self, video: Tensor, time: Array, opacity: Array | None, shift: Array | None) -> Tensor:
        centred = time - (NUM_FRAMES - 1) / 2
        where = self.start + centred[:, None] * self.velocity + np.sin(0.6 * centred)[:, None] * self.sway
        where = where if shift is None else where + shift
        axis = torch.arange(SIZE, dtype=torch.float32)
        place = torch.from_numpy(where.astype(np.float32))[:, :, None, None]
        x, y = axis[None, None, :] - place[:, 0], axis[None, :, None] - place[:, 1]
        angle, edge = torch.atan2(y, x), torch.ones(())
        for k, (a, b) in enumerate(self.waves, start=2):
            edge = edge + a * torch.cos(k * angle) + b * torch.sin(k * angle)
        cover = (0.5 + self.radius * edge - torch.hypot(x, y)).clamp(0, 1)
        if opacity is not None:
            cover = cover * torch.from_numpy(opacity.astype(np.float32))[:, None, None]
        fx, fy, amount, sx, sy = self.stripes
        light = 1 + amount * torch.sin(fx * x + fy * y) + sx * x + sy * y
        fore: Tensor = torch.from_numpy(self.colour.astype(np.float32))[None, :, None, None] * light[:, None]
        return video + (fore - video) * cover[:, None]


def _compose(
    canvas: Tensor,
    camera: _Camera,
    objects: list[_Object],
    time: Array,
    opacity: Array | None = None,
    shift: Array | None = None,
) -> Tensor:
    video = camera.view(canvas, time)
    for k, thing in enumerate(reversed(objects)):  # the main object is in front
        main = k == len(objects) - 1
        video = thing.over(video, time, opacity if main else None, shift if main else None)
    return video.clamp(0, 1)


@functools.lru_cache(maxsize=4 * NUM_CANVASES)
def _canvas(seed: int, index: int) -> Tensor:
    """Dead leaves ``[3, CANVAS, CANVAS]``: textured, shaded discs with radii of density r^-3."""
    rng = np.random.default_rng([seed, 7_919, index])
    noise = _pink(rng, 2 * CANVAS, rng.uniform(0.9, 1.3)).numpy()
    palette = rng.uniform(0.05, 0.95, (int(rng.integers(3, 9)), 3))
    palette = palette.mean(1, keepdims=True) + (palette - palette.mean(1, keepdims=True)) * rng.uniform(0.2, 0.9)
    out = np.empty((3, CANVAS, CANVAS), np.float32)
    out[:] = palette[0][:, None, None]
    for _ in range(260):
        radius = min(4.0 / np.sqrt(1 - rng.random() * (1 - (4.0 / 45.0) ** 2)), 45.0)
        cx, cy = rng.uniform(-10, CANVAS + 10, 2)
        x0, x1 = int(max(0, cx - radius - 1)), int(min(CANVAS, cx + radius + 2))
        y0, y1 = int(max(0, cy - radius - 1)), int(min(CANVAS, cy + radius + 2))
        if x0 >= x1 or y0 >= y1:
            continue
        x, y = np.arange(x0, x1)[None, :] - cx, np.arange(y0, y1)[:, None] - cy
        cover = np.clip(0.5 + radius - np.hypot(x, y), 0, 1)
        colour = np.clip(palette[int(rng.integers(len(palette)))] + rng.normal(0, 0.06, 3), 0.02, 0.98)
        u, v = rng.integers(0, CANVAS, 2)
        shade = 1 + rng.uniform(0, 0.2) * noise[v : v + y1 - y0, u : u + x1 - x0]
        shade = shade + rng.normal(0, 0.15) * x / radius + rng.normal(0, 0.15) * y / radius
        patch = out[:, y0:y1, x0:x1]
        patch += (colour[:, None, None] * shade - patch) * cover
    return torch.from_numpy(np.clip(out, 0, 1))


def _pink(rng: Rng, size: int, power: float) -> Tensor:
    """Noise ``[size, size]`` with amplitudes 1/f^power, of standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    shaped = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) / frequency**power, s=(size, size))
    return torch.from_numpy((shaped / shaped.std()).astype(np.float32))


@functools.cache
def _scenes() -> list[world.Scene]:
    return world.scenes(held_out=False) + world.scenes(held_out=True)
