"""What diffusion videos do wrong, imitated: each degradation is a function of (clip, window, severity, rng).

Shapes: a clip's video is ``[F, 3, H, W]`` in [0, 1]; ``window = (start, end)`` is half open; severity is 1 to
5. The result is the degraded video; frames outside the window are untouched, except for the kinds in `WHOLE`,
whose trace is not confined to a window. For one clip, window and state of `rng`, severities are ordered: the
draws are the same and only the amount changes, so they form a chain to rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vpo_kit.rewards.corpus import Array, Clip, Rng
from vpo_kit.rewards.soften import blur

Window = tuple[int, int]
Degradation = Callable[[Clip, Window, int, Rng], Tensor]
SEVERITIES = (1, 2, 3, 4, 5)


def _amount(severity: int, *levels: float) -> float:
    return levels[severity - 1]


def _inside(clip: Clip, window: Window, change: Callable[[Tensor], Tensor]) -> Tensor:
    start, end = window
    video = clip.video.clone()
    video[start:end] = change(video[start:end]).clamp(0, 1)
    return video


def _times(clip: Clip) -> Array:
    return np.arange(clip.num_frames, dtype=np.float64)


def soft(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Gaussian blur."""
    return _inside(clip, window, lambda v: blur(v, _amount(severity, 0.8, 1.2, 1.8, 2.6, 3.6)))


def downup(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Detail lost by a smaller picture in between."""
    factor = _amount(severity, 0.65, 0.5, 0.38, 0.28, 0.2)

    def change(v: Tensor) -> Tensor:
        size = [max(4, round(n * factor)) for n in v.shape[-2:]]
        small = functional.interpolate(v, size, mode="bilinear", antialias=True)
        return functional.interpolate(small, v.shape[-2:], mode="bilinear")

    return _inside(clip, window, change)


def noise(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Fine grain, new in each frame."""
    grain = _normal(rng, window[1] - window[0], 3, *clip.video.shape[-2:])
    return _inside(clip, window, lambda v: v + grain * _amount(severity, 0.025, 0.045, 0.07, 0.11, 0.16))


def grain(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Coarse grain without colour, cells of the autoencoder's stride (8 pixels) or half of it."""
    cell = 8 if rng.random() < 0.7 else 4
    height, width = clip.video.shape[-2:]
    coarse = _normal(rng, window[1] - window[0], 1, -(-height // cell), -(-width // cell))
    fine = coarse.repeat_interleave(cell, 2).repeat_interleave(cell, 3)[..., :height, :width]
    return _inside(clip, window, lambda v: v + fine * _amount(severity, 0.02, 0.035, 0.06, 0.09, 0.14))


def residual(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Noise that sampling left behind: smooth in space, slowly changing in time."""
    raw = blur(_normal(rng, window[1] - window[0], 3, *clip.video.shape[-2:]), 1.5) * 5.0
    for k in range(1, len(raw)):
        raw[k] = 0.7 * raw[k - 1] + 0.7 * raw[k]
    return _inside(clip, window, lambda v: v + raw * _amount(severity, 0.02, 0.035, 0.055, 0.08, 0.12))


def blocks(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """A mosaic of 4 or 8 pixel cells, blended with the picture."""
    cell = 8 if rng.random() < 0.7 else 4

    def change(v: Tensor) -> Tensor:
        coarse = functional.avg_pool2d(v, cell, ceil_mode=True)
        mosaic = coarse.repeat_interleave(cell, 2).repeat_interleave(cell, 3)[..., : v.shape[2], : v.shape[3]]
        return v + (mosaic - v) * _amount(severity, 0.2, 0.4, 0.6, 0.8, 1.0)

    return _inside(clip, window, change)


def flicker(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Gain or gamma that jumps: alternating, at random, or a step at every fourth frame (a latent frame)."""
    length, pattern, gamma = window[1] - window[0], int(rng.integers(3)), rng.random() < 0.3
    steps = np.arange(length)
    signs = ((-1.0) ** steps, rng.uniform(-1, 1, length), (-1.0) ** (steps // 4 + (steps % 4 == 3)))[pattern]
    change = torch.from_numpy(signs * _amount(severity, 0.06, 0.12, 0.2, 0.3, 0.42)).float()[:, None, None, None]
    return _inside(clip, window, lambda v: v.clamp(min=1e-3) ** torch.exp(change) if gamma else v * (1 + change))


def drift(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """The colour balance drifts away (and returns at the window's end)."""
    start, end = window
    tint = rng.choice([-1.0, 1.0], 3) * rng.uniform(0.5, 1.0, 3)
    tint = tint - tint.mean() * 0.5
    ramp = np.sin(np.pi / 2 * (np.arange(end - start) + 1) / (end - start)) ** 0.5
    move = torch.from_numpy(ramp[:, None] * tint * _amount(severity, 0.04, 0.08, 0.13, 0.2, 0.3)).float()
    return _inside(clip, window, lambda v: v + move[:, :, None, None])


def saturate(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Over-saturated and over-contrasted, as under too much guidance."""
    gain = _amount(severity, 1.25, 1.5, 1.9, 2.5, 3.5)

    def change(v: Tensor) -> Tensor:
        grey = v.mean(1, keepdim=True)
        return grey + (v - grey) * gain + (grey - grey.mean((2, 3), keepdim=True)) * (gain - 1) * 0.5

    return _inside(clip, window, change)


def dull(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Low contrast and pale colours: everything moves towards the frame's mean, or its grey."""
    keep = _amount(severity, 0.82, 0.68, 0.52, 0.36, 0.2)
    grey = rng.random() < 0.3

    def change(v: Tensor) -> Tensor:
        pale = v.mean(1, keepdim=True) if grey else v.mean((2, 3), keepdim=True)
        return pale + (v - pale) * keep

    return _inside(clip, window, change)


def jitter(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """The main object, or the whole picture, shakes."""
    size = _amount(severity, 0.6, 1.1, 1.7, 2.5, 3.5)
    start, end = window
    shift = np.zeros((clip.num_frames, 2))
    shift[start:end] = rng.choice([-1.0, 1.0], (end - start, 2)) * rng.uniform(0.7, 1.3, (end - start, 2)) * size
    if clip.family == "sprite" or rng.random() < 0.5:
        return clip.redraw(_times(clip), shift=shift)
    move = shift[start:end, None, None, :] + np.zeros((end - start, *clip.video.shape[-2:], 2))
    return _inside(clip, window, lambda v: _warp(v, torch.from_numpy(move).float()))


def boil(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Boiling texture and outlines: a smooth random displacement, new in each frame."""
    length, (height, width) = window[1] - window[0], clip.video.shape[-2:]
    field = functional.interpolate(_normal(rng, length, 2, height // 7, width // 7), (height, width), mode="bicubic")
    move = field.permute(0, 2, 3, 1) * _amount(severity, 0.6, 1.0, 1.6, 2.4, 3.5)
    return _inside(clip, window, lambda v: _warp(v, move))


def morph(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Things turn into something else: a smooth warp that grows over the window and snaps back."""
    length, (height, width) = window[1] - window[0], clip.video.shape[-2:]
    field = functional.interpolate(_normal(rng, 1, 2, height // 10, width // 10), (height, width), mode="bicubic")
    grow = torch.linspace(0.4, 1.0, length)[:, None, None, None]
    move = field.permute(0, 2, 3, 1) * grow * _amount(severity, 1.2, 2.0, 3.0, 4.5, 6.5)
    return _inside(clip, window, lambda v: _warp(v, move))


def ghost(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """A trail: the frame blended with where things were some frames before (or will be)."""
    lag = float(rng.choice([-4, -3, 3, 4, 5]))
    past = clip.redraw(np.clip(_times(clip) - lag, 0, clip.num_frames - 1))[window[0] : window[1]]
    weight = _amount(severity, 0.12, 0.2, 0.3, 0.4, 0.5)
    return _inside(clip, window, lambda v: v + (past - v) * weight)


def fade(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """The main object fades and comes back."""
    length = window[1] - window[0]
    bump = np.sin(np.pi * (np.arange(length) + 1) / (length + 1)) ** 0.5
    return _opacity(clip, window, 1 - _amount(severity, 0.25, 0.42, 0.6, 0.8, 1.0) * bump)


def vanish(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """The main object is faint, or gone, for the whole window."""
    depth = _amount(severity, 0.2, 0.36, 0.55, 0.78, 1.0)
    return _opacity(clip, window, np.full(window[1] - window[0], 1 - depth))


def pop(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """The main object pops in and out from frame to frame."""
    away = rng.random(window[1] - window[0]) < 0.6
    away[0] = True
    return _opacity(clip, window, 1 - _amount(severity, 0.25, 0.42, 0.6, 0.8, 1.0) * away)


def freeze(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Time nearly stands still in the window, and the clip then jumps to where it should be."""
    start, end = window
    time = _times(clip)
    origin = max(start - 1, 0)
    time[start:end] = origin + (time[start:end] - origin) * _amount(severity, 0.6, 0.4, 0.2, 0.08, 0.0)
    return clip.redraw(time)


def stutter(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Each frame is shown several times, as at a lower frame rate."""
    start, end = window
    hold = severity + 1
    time = _times(clip)
    time[start:end] = start + (np.arange(end - start) // hold) * hold
    return clip.redraw(time)


def shuffle(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Frames out of order; the severity is how far they stray."""
    start, end = window
    stray = np.arange(end - start) + rng.uniform(-1, 1, end - start) * _amount(severity, 0.9, 1.3, 2.0, 3.0, 5.0)
    order = np.argsort(stray)
    if (order == np.arange(end - start)).all():
        order[:2] = 1, 0
    time = _times(clip)
    time[start:end] = start + (order if severity > 1 else np.abs(stray))
    return clip.redraw(np.minimum(time, clip.num_frames - 1))


def drop(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Frames are missing at the window's start: a jump; the last frame is held at the end."""
    time = _times(clip)
    time[window[0] :] += _amount(severity, 2, 3, 4, 5, 7)
    return clip.redraw(np.minimum(time, clip.num_frames - 1))


def slow(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """The same motion at less speed, smoothly, over the whole clip."""
    middle = rng.uniform(0, clip.num_frames - 1)
    return clip.redraw(middle + (_times(clip) - middle) * _amount(severity, 0.8, 0.65, 0.5, 0.35, 0.2))


def collapse(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """Motion dies away after the window's start."""
    rest = _amount(severity, 6.0, 4.0, 2.5, 1.4, 0.6)
    time = _times(clip)
    late = np.maximum(time - window[0] / 2, 0)
    return clip.redraw(np.minimum(time, window[0] / 2) + rest * (1 - np.exp(-late / rest)))


def static(clip: Clip, window: Window, severity: int, rng: Rng) -> Tensor:
    """One frame for the whole clip: the static clone, with a trace of motion below severity 5."""
    keep = _amount(severity, 0.12, 0.08, 0.05, 0.02, 0.0)
    middle = rng.uniform(0, clip.num_frames - 1)
    return clip.redraw(middle + (_times(clip) - middle) * keep)


DEGRADATIONS: dict[str, Degradation] = {
    "blur": soft,
    "downup": downup,
    "noise": noise,
    "grain": grain,
    "residual": residual,
    "blocks": blocks,
    "flicker": flicker,
    "drift": drift,
    "saturate": saturate,
    "dull": dull,
    "jitter": jitter,
    "boil": boil,
    "morph": morph,
    "ghost": ghost,
    "fade": fade,
    "vanish": vanish,
    "pop": pop,
    "freeze": freeze,
    "stutter": stutter,
    "shuffle": shuffle,
    "drop": drop,
    "slow": slow,
    "collapse": collapse,
    "static": static,
}
WHOLE = frozenset({"drop", "slow", "collapse", "static"})  # no frame labels: the trace is not confined to the window
MILD = frozenset({"slow"})  # clean all the same: less motion costs a little, never as much as a flaw


def _opacity(clip: Clip, window: Window, inside: NDArray[Any]) -> Tensor:
    opacity = np.ones(clip.num_frames)
    opacity[window[0] : window[1]] = inside
    return clip.redraw(_times(clip), opacity=opacity)


def _normal(rng: Rng, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def _warp(video: Tensor, move: Tensor) -> Tensor:
    """``[F, 3, H, W]`` looked up at displacements ``[F, H, W, 2]`` (x, y) in pixels, edges repeated."""
    frames, _, height, width = video.shape
    same = torch.eye(2, 3).expand(frames, -1, -1)
    grid = functional.affine_grid(same, [frames, 3, height, width], align_corners=False)
    grid = grid + move * torch.tensor([2 / width, 2 / height])
    return functional.grid_sample(video, grid, padding_mode="border", align_corners=False)
