"""Flaws of the picture: sharpness, noise, blocks, brightness and colour."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import vpo_kit.rewards.degrade.tools as tools
from vpo_kit.rewards.degrade.drawn import Drawn, Rng
from vpo_kit.rewards.degrade.tools import Window
from vpo_kit.rewards.soften import blur


def soft(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Gaussian blur."""
    return tools.inside(clip, window, lambda v: blur(v, tools.amount(severity, 0.8, 1.2, 1.8, 2.6, 3.6)))


def downup(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Detail lost by a smaller picture in between."""
    factor = tools.amount(severity, 0.65, 0.5, 0.38, 0.28, 0.2)

    def change(v: Tensor) -> Tensor:
        size = [max(4, round(n * factor)) for n in v.shape[-2:]]
        small = functional.interpolate(v, size, mode="bilinear", antialias=True)
        return functional.interpolate(small, v.shape[-2:], mode="bilinear")

    return tools.inside(clip, window, change)


def noise(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Fine grain, new in each frame."""
    grain = tools.normal(rng, window[1] - window[0], 3, *clip.video.shape[-2:])
    return tools.inside(clip, window, lambda v: v + grain * tools.amount(severity, 0.025, 0.045, 0.07, 0.11, 0.16))


def grain(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Coarse grain without colour, cells of the autoencoder's stride (8 pixels) or half of it."""
    cell = 8 if rng.random() < 0.7 else 4
    height, width = clip.video.shape[-2:]
    coarse = tools.normal(rng, window[1] - window[0], 1, -(-height // cell), -(-width // cell))
    fine = coarse.repeat_interleave(cell, 2).repeat_interleave(cell, 3)[..., :height, :width]
    return tools.inside(clip, window, lambda v: v + fine * tools.amount(severity, 0.02, 0.035, 0.06, 0.09, 0.14))


def residual(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Noise that sampling left behind: smooth in space, slowly changing in time."""
    raw = blur(tools.normal(rng, window[1] - window[0], 3, *clip.video.shape[-2:]), 1.5) * 5.0
    for k in range(1, len(raw)):
        raw[k] = 0.7 * raw[k - 1] + 0.7 * raw[k]
    return tools.inside(clip, window, lambda v: v + raw * tools.amount(severity, 0.02, 0.035, 0.055, 0.08, 0.12))


def blocks(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """A mosaic of 4 or 8 pixel cells, blended with the picture."""
    cell = 8 if rng.random() < 0.7 else 4

    def change(v: Tensor) -> Tensor:
        coarse = functional.avg_pool2d(v, cell, ceil_mode=True)
        mosaic = coarse.repeat_interleave(cell, 2).repeat_interleave(cell, 3)[..., : v.shape[2], : v.shape[3]]
        return v + (mosaic - v) * tools.amount(severity, 0.2, 0.4, 0.6, 0.8, 1.0)

    return tools.inside(clip, window, change)


def flicker(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Gain or gamma that jumps: alternating, at random, or a step at every fourth frame (a latent frame)."""
    length, pattern, gamma = window[1] - window[0], int(rng.integers(3)), rng.random() < 0.3
    steps = np.arange(length)
    signs = ((-1.0) ** steps, rng.uniform(-1, 1, length), (-1.0) ** (steps // 4 + (steps % 4 == 3)))[pattern]
    change = torch.from_numpy(signs * tools.amount(severity, 0.06, 0.12, 0.2, 0.3, 0.42)).float()[:, None, None, None]
    return tools.inside(clip, window, lambda v: v.clamp(min=1e-3) ** torch.exp(change) if gamma else v * (1 + change))


def drift(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """The colour balance drifts away (and returns at the window's end)."""
    start, end = window
    tint = rng.choice([-1.0, 1.0], 3) * rng.uniform(0.5, 1.0, 3)
    tint = tint - tint.mean() * 0.5
    ramp = np.sin(np.pi / 2 * (np.arange(end - start) + 1) / (end - start)) ** 0.5
    move = torch.from_numpy(ramp[:, None] * tint * tools.amount(severity, 0.04, 0.08, 0.13, 0.2, 0.3)).float()
    return tools.inside(clip, window, lambda v: v + move[:, :, None, None])


def saturate(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Over-saturated and over-contrasted, as under too much guidance."""
    gain = tools.amount(severity, 1.25, 1.5, 1.9, 2.5, 3.5)

    def change(v: Tensor) -> Tensor:
        grey = v.mean(1, keepdim=True)
        return grey + (v - grey) * gain + (grey - grey.mean((2, 3), keepdim=True)) * (gain - 1) * 0.5

    return tools.inside(clip, window, change)


def dull(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Low contrast and pale colours: everything moves towards the frame's mean, or its grey."""
    keep = tools.amount(severity, 0.82, 0.68, 0.52, 0.36, 0.2)
    grey = rng.random() < 0.3

    def change(v: Tensor) -> Tensor:
        pale = v.mean(1, keepdim=True) if grey else v.mean((2, 3), keepdim=True)
        return pale + (v - pale) * keep

    return tools.inside(clip, window, change)
