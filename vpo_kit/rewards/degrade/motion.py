"""Flaws in time: things that shake, change, come and go, and time that stands still, jumps or dies away."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import vpo_kit.rewards.degrade.tools as tools
from vpo_kit.rewards.degrade.drawn import Drawn, Rng
from vpo_kit.rewards.degrade.tools import Window


def jitter(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """The main object, or the whole picture, shakes."""
    size = tools.amount(severity, 0.6, 1.1, 1.7, 2.5, 3.5)
    start, end = window
    shift = np.zeros((clip.num_frames, 2))
    shift[start:end] = rng.choice([-1.0, 1.0], (end - start, 2)) * rng.uniform(0.7, 1.3, (end - start, 2)) * size
    if clip.family == "sprite" or rng.random() < 0.5:
        return clip.redraw(tools.times(clip), shift=shift)
    move = shift[start:end, None, None, :] + np.zeros((end - start, *clip.video.shape[-2:], 2))
    return tools.inside(clip, window, lambda v: tools.warp(v, torch.from_numpy(move).float()))


def boil(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Boiling texture and outlines: a smooth random displacement, new in each frame."""
    length, (height, width) = window[1] - window[0], clip.video.shape[-2:]
    field = functional.interpolate(
        tools.normal(rng, length, 2, height // 7, width // 7), (height, width), mode="bicubic"
    )
    move = field.permute(0, 2, 3, 1) * tools.amount(severity, 0.6, 1.0, 1.6, 2.4, 3.5)
    return tools.inside(clip, window, lambda v: tools.warp(v, move))


def morph(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Things turn into something else: a smooth warp that grows over the window and snaps back."""
    length, (height, width) = window[1] - window[0], clip.video.shape[-2:]
    field = functional.interpolate(tools.normal(rng, 1, 2, height // 10, width // 10), (height, width), mode="bicubic")
    grow = torch.linspace(0.4, 1.0, length)[:, None, None, None]
    move = field.permute(0, 2, 3, 1) * grow * tools.amount(severity, 1.2, 2.0, 3.0, 4.5, 6.5)
    return tools.inside(clip, window, lambda v: tools.warp(v, move))


def ghost(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """A trail: the frame blended with where things were some frames before (or will be)."""
    lag = float(rng.choice([-4, -3, 3, 4, 5]))
    past = clip.redraw(np.clip(tools.times(clip) - lag, 0, clip.num_frames - 1))[window[0] : window[1]]
    weight = tools.amount(severity, 0.12, 0.2, 0.3, 0.4, 0.5)
    return tools.inside(clip, window, lambda v: v + (past - v) * weight)


def fade(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """The main object fades and comes back."""
    length = window[1] - window[0]
    bump = np.sin(np.pi * (np.arange(length) + 1) / (length + 1)) ** 0.5
    return tools.opacity(clip, window, 1 - tools.amount(severity, 0.25, 0.42, 0.6, 0.8, 1.0) * bump)


def vanish(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """The main object is faint, or gone, for the whole window."""
    depth = tools.amount(severity, 0.2, 0.36, 0.55, 0.78, 1.0)
    return tools.opacity(clip, window, np.full(window[1] - window[0], 1 - depth))


def pop(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """The main object pops in and out from frame to frame."""
    away = rng.random(window[1] - window[0]) < 0.6
    away[0] = True
    return tools.opacity(clip, window, 1 - tools.amount(severity, 0.25, 0.42, 0.6, 0.8, 1.0) * away)


def freeze(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Time nearly stands still in the window, and the clip then jumps to where it should be."""
    start, end = window
    time = tools.times(clip)
    origin = max(start - 1, 0)
    time[start:end] = origin + (time[start:end] - origin) * tools.amount(severity, 0.6, 0.4, 0.2, 0.08, 0.0)
    return clip.redraw(time)


def stutter(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Each frame is shown several times, as at a lower frame rate."""
    start, end = window
    hold = severity + 1
    time = tools.times(clip)
    time[start:end] = start + (np.arange(end - start) // hold) * hold
    return clip.redraw(time)


def shuffle(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Frames out of order; the severity is how far they stray."""
    start, end = window
    stray = np.arange(end - start) + rng.uniform(-1, 1, end - start) * tools.amount(severity, 0.9, 1.3, 2.0, 3.0, 5.0)
    order = np.argsort(stray)
    if (order == np.arange(end - start)).all():
        order[:2] = 1, 0
    time = tools.times(clip)
    time[start:end] = start + (order if severity > 1 else np.abs(stray))
    return clip.redraw(np.minimum(time, clip.num_frames - 1))


def drop(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Frames are missing at the window's start: a jump; the last frame is held at the end."""
    time = tools.times(clip)
    time[window[0] :] += tools.amount(severity, 2, 3, 4, 5, 7)
    return clip.redraw(np.minimum(time, clip.num_frames - 1))


def slow(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """The same motion at less speed, smoothly, over the whole clip."""
    middle = rng.uniform(0, clip.num_frames - 1)
    return clip.redraw(middle + (tools.times(clip) - middle) * tools.amount(severity, 0.8, 0.65, 0.5, 0.35, 0.2))


def collapse(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """Motion dies away after the window's start."""
    rest = tools.amount(severity, 6.0, 4.0, 2.5, 1.4, 0.6)
    time = tools.times(clip)
    late = np.maximum(time - window[0] / 2, 0)
    return clip.redraw(np.minimum(time, window[0] / 2) + rest * (1 - np.exp(-late / rest)))


def static(clip: Drawn, window: Window, severity: int, rng: Rng) -> Tensor:
    """One frame for the whole clip: the static clone, with a trace of motion below severity 5."""
    keep = tools.amount(severity, 0.12, 0.08, 0.05, 0.02, 0.0)
    middle = rng.uniform(0, clip.num_frames - 1)
    return clip.redraw(middle + (tools.times(clip) - middle) * keep)
