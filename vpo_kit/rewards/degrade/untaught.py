"""Flaws that `vqa` and `gold` were not taught: of coding, screens and tearing, and things that are not where they were.

`gold2` learns them, and they tell how far the others see what they were never shown.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import vpo_kit.rewards.degrade.tools as tools
from vpo_kit.rewards.degrade.drawn import Drawn, Rng
from vpo_kit.rewards.degrade.tools import Window
from vpo_kit.rewards.soften import blur


def fringe(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Red and blue out of register."""
    size = tools.amount(severity, 0.5, 0.9, 1.4, 2.2, 3.2)
    angle = rng.uniform(0, 2 * math.pi)

    def change(v: Tensor) -> Tensor:
        move = torch.tensor([math.cos(angle), math.sin(angle)]) * size
        red, blue = (tools.warp(v, (sign * move).expand(len(v), *v.shape[-2:], 2)) for sign in (1, -1))
        return torch.stack([red[:, 0], v[:, 1], blue[:, 2]], 1)

    return tools.inside(clip, window, change)


def echo(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """A second, fainter picture beside the first."""
    angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(4, 10)
    move = torch.tensor([math.cos(angle), math.sin(angle)]).float() * far
    weight = tools.amount(severity, 0.08, 0.14, 0.22, 0.32, 0.45)
    return tools.inside(clip, window, lambda v: v + (tools.warp(v, move.expand(len(v), *v.shape[-2:], 2)) - v) * weight)


def tear(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """The picture stands beside itself below a line, which is new in each frame."""
    size = tools.amount(severity, 0.8, 1.4, 2.2, 3.4, 5.0)
    lines = rng.uniform(0.2, 0.8, window[1] - window[0])
    signs = rng.choice([-1.0, 1.0], len(lines))
    rows = np.linspace(0, 1, clip.video.shape[-2])
    across = torch.from_numpy((rows[None] > lines[:, None]) * signs[:, None] * size).float()
    move = torch.stack([across, torch.zeros_like(across)], -1)[:, :, None].expand(-1, -1, clip.video.shape[-1], -1)
    return tools.inside(clip, window, lambda v: tools.warp(v, move))


def comb(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Odd rows are of another time, as in interlaced video."""
    lag = tools.amount(severity, 0.4, 0.7, 1.1, 1.7, 2.6)
    other = clip.redraw(np.clip(tools.times(clip) - lag, 0, clip.num_frames - 1))
    video = clip.video.clone()
    video[window[0] : window[1], :, 1::2] = other[window[0] : window[1], :, 1::2]
    return video


def posterise(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Few steps between black and white."""
    steps = tools.amount(severity, 20.0, 14.0, 10.0, 7.0, 4.5)
    offset = float(rng.random())
    return tools.inside(clip, window, lambda v: ((v * steps + offset).round() - offset) / steps)


def ringing(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Waves along edges, as of too few coefficients."""
    gain = tools.amount(severity, 0.8, 1.3, 2.0, 3.0, 4.5)

    def change(v: Tensor) -> Tensor:
        fine, broad = blur(v, 0.7), blur(v, 1.4)
        return v + gain * ((fine - broad) - blur(fine - broad, 1.0))

    return tools.inside(clip, window, change)


def pulse(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """The picture's size goes up and down."""
    depth, phase = tools.amount(severity, 0.012, 0.02, 0.035, 0.055, 0.08), rng.uniform(0, 2 * math.pi)
    sizes = depth * np.sin(np.arange(window[1] - window[0]) * rng.uniform(1.6, 2.8) + phase)
    height, width = clip.video.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) - height / 2, torch.arange(width) - width / 2, indexing="ij")
    move = torch.stack([x, y], -1) * torch.from_numpy(sizes).float()[:, None, None, None]
    return tools.inside(clip, window, lambda v: tools.warp(v, move))


def hue(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Colours turn round the grey axis, and on with each frame."""
    length = window[1] - window[0]
    turn = np.linspace(0.4, 1.0, length) * tools.amount(severity, 0.2, 0.35, 0.6, 1.0, 1.6) * rng.choice([-1.0, 1.0])
    third = torch.full((3, 3), 1 / 3)
    axis = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    cos, sin = (torch.from_numpy(f(turn)).float()[:, None, None] for f in (np.cos, np.sin))
    matrix = cos * torch.eye(3) + (1 - cos) * third + sin * axis
    return tools.inside(clip, window, lambda v: torch.einsum("fij,fjhw->fihw", matrix, v))


def stuck(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """A part of the picture stays behind while the rest goes on."""
    side = round(tools.amount(severity, 0.2, 0.28, 0.38, 0.5, 0.65) * clip.video.shape[-2])
    top, left = (int(rng.integers(0, size - side + 1)) for size in clip.video.shape[-2:])
    video = clip.video.clone()
    old = video[max(window[0] - 3, 0), :, top : top + side, left : left + side]
    video[window[0] : window[1], :, top : top + side, left : left + side] = old
    return video


def speckle(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Single pixels black or white, others in each frame."""
    share = tools.amount(severity, 0.003, 0.006, 0.012, 0.025, 0.05)
    dice = torch.from_numpy(rng.random((window[1] - window[0], 1, *clip.video.shape[-2:]), dtype=np.float32))
    return tools.inside(clip, window, lambda v: torch.where(dice < share, (dice < share / 2).float(), v))


def ripple(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Waves run through the picture."""
    size, length = tools.amount(severity, 0.5, 0.9, 1.4, 2.2, 3.2), rng.uniform(9, 22)
    time = torch.arange(window[1] - window[0])[:, None] * float(rng.uniform(0.7, 1.6))
    rows = torch.arange(clip.video.shape[-2])[None] * (2 * math.pi / length)
    across = size * torch.sin(rows + time)
    move = torch.stack([across, torch.zeros_like(across)], -1)[:, :, None].expand(-1, -1, clip.video.shape[-1], -1)
    return tools.inside(clip, window, lambda v: tools.warp(v, move))


def teleport(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """The main object is suddenly elsewhere, and as suddenly back."""
    far, angle = tools.amount(severity, 1.5, 2.5, 4.0, 6.0, 9.0), rng.uniform(0, 2 * math.pi)
    shift = np.zeros((clip.num_frames, 2))
    shift[window[0] : window[1]] = far * np.array([math.cos(angle), math.sin(angle)])
    return clip.redraw(tools.times(clip), shift=shift)


def halve(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Detail across is lost and detail down is kept, as in a squeezed picture."""
    factor = tools.amount(severity, 0.6, 0.48, 0.38, 0.28, 0.2)

    def change(v: Tensor) -> Tensor:
        size = v.shape[-2], max(4, round(v.shape[-1] * factor))
        small = functional.interpolate(v, size, mode="bilinear", antialias=True)
        return functional.interpolate(small, v.shape[-2:], mode="bilinear")

    return tools.inside(clip, window, change)
