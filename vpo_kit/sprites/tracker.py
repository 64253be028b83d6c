"""What a sprite clip shows, read from its pixels alone: colour, shape, motion, speed and flaws.

Shapes: a video is ``[F, 3, H, W]`` in [0, 1], F >= 6; a path is ``[F, 2]`` (x, y) in pixels; speeds are
pixels a frame. A frame is split into a flat background and a coverage mask; the rest is closed form on these.
The limits suit clips from a lossy autoencoder: soft edges, 0.25 px of centroid noise, faint mottling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from vpo_kit.sprites import world

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEAST_FRAMES = 6
HALF = 17  # pixels: the mask is a crop of side S = 2 * HALF + 1 around the shape
TOP = 40  # pixels that surely lie inside the shape (the smallest one covers about 120)
PACE_LIMIT = 1.25  # pixels a frame
MIN_CONTRAST, MIN_AMPLITUDE = 0.12, 0.2  # invisible below: RGB distance in a clip; share of it in a frame
MIN_ARC, MIN_ARC_RATIO = 0.75, 0.07  # circling: extent across the main axis, in pixels and as a share of it
SURE_BEND = 1.9  # pixels: second difference up to which a run of four centroids is trusted
MOMENT_SCALE = np.array([0.15, 0.2, 0.08, 0.25])

FLICKER_LIMIT = 0.13  # alternating change of brightness
FADE_LIMIT = 0.68  # share of the usual mass and contrast
BLUR_LIMITS = (1.5, 2.0)  # edge softness over a clean shape; within them, 1.3 times the clip's own
BLOCKS_LIMIT = 0.27  # share of the gradient on the 8-pixel grid (1/8 by chance)
NOISE_LIMIT = 0.032  # standard deviation of the background's brightness
JITTER_LIMIT = 2.7  # pixels: second difference of the path
FREEZE_LIMIT = 0.38  # share of the usual speed left over five frames
DROP_LIMIT = 1.45  # pixels by which one step exceeds the usual speed
STILL_LIMIT = 0.3  # pixels a frame: slower than any clip of the world


@dataclass(frozen=True, kw_only=True)
class Track:
    """The reading of one clip; `path` is ``[F, 2]`` (x, y) in pixels, nan where no shape is visible."""

    colour: str
    shape: str
    motion: str
    background: str
    speed: float
    flaws: tuple[str, ...]
    path: Floats

    @property
    def pace(self) -> str:
        """The caption's word for the speed."""
        return "slowly" if self.speed < PACE_LIMIT else "quickly"


@dataclass(frozen=True, kw_only=True)
class _Frames:
    """Per-frame measurements."""

    background: Floats  # [F, 3] colour
    contrast: Floats  # [3] usual colour of the shape minus the background's
    mask: Floats  # [F, S, S] coverage in [0, 1], scaled to 1 inside the shape
    corner: NDArray[np.intp]  # [F, 2] (x, y) of the mask's first pixel
    amplitude: Floats  # [F] contrast as a share of the usual one
    residual: Floats  # [F] standard deviation of the background's brightness away from the shape
    hidden: Bools  # [F] whether something else is before the shape: such frames tell neither shape nor place

    @property
    def clear(self) -> Bools:
        """Whether the shape is visible and whole and the background calm, ``[F]``."""
        return (self.amplitude > MIN_AMPLITUDE) & (self.residual <= NOISE_LIMIT) & ~self.hidden


def track(video: Array, hidden: Bools | None = None) -> Track:
    """Read a clip ``[F, 3, H, W]`` in [0, 1]; `ValueError` for another array shape or fewer than 6 frames.

    Frames ``[F]`` that are `hidden` have something else in the shape's place: it is read from the others.
    """
    hidden = np.zeros(len(video), bool) if hidden is None else hidden
    frames = _measure(readable(video), hidden)
    grid, background = _grid(frames), np.median(frames.background, 0)
    shape, softness = _shape(frames, grid)
    path = frames.corner + _centre(np.clip((frames.mask - 0.05) / 0.95, 0, 1))
    path[(frames.amplitude <= MIN_AMPLITUDE) | hidden] = np.nan
    whole = _fill(path)
    sure = _sure(whole, frames.clear & (grid <= BLOCKS_LIMIT))
    speed = _speed(whole, sure)
    return Track(
        colour=_nearest(world.COLOURS, background + frames.contrast),
        shape=shape,
        motion=_motion(_smooth(whole, sure)),
        background=_nearest(world.BACKGROUNDS, background),
        speed=speed,
        flaws=_pixel_flaws(frames, softness, grid) + _path_flaws(whole[_span(hidden)], speed),
        path=path,
    )


def readable(video: Array) -> Array:
    """A clip ``[F, 3, H, W]`` as float32 in [0, 1]; `ValueError` for another array shape or fewer than 6 frames."""
    if video.ndim != 4 or video.shape[1] != 3 or video.shape[0] < LEAST_FRAMES or min(video.shape[2:]) < HALF:
        raise ValueError(f"expected a clip [F >= {LEAST_FRAMES}, 3, H >= {HALF}, W >= {HALF}], got {video.shape}")
    return np.clip(np.nan_to_num(video), 0, 1).astype(np.float32, copy=False)


def judge(video: Array, scene: world.Scene) -> dict[str, float]:
    """How well a clip ``[F, 3, H, W]`` fits its scene: 1.0 right or 0.0 wrong per word, and the flaws."""
    seen = track(video)
    words = {
        "colour": float(seen.colour == scene.colour),
        "shape": float(seen.shape == scene.shape),
        "direction": float(seen.motion == scene.motion),
        "speed_class": float(seen.pace == scene.speed),
    }
    rest = {"text_accuracy": sum(words.values()) / 4, "flawed": float(bool(seen.flaws)), "speed": seen.speed}
    return words | {"background": float(seen.background == scene.background)} | rest


def _measure(video: Array, hidden: Bools) -> _Frames:
    """Split each frame into background and coverage."""
    count, width = len(video), video.shape[3]
    background = np.median(video[:, :, ::2, ::2].reshape(count, 3, -1), 2)
    excess = video - background[:, :, None, None]
    flat = excess.reshape(count, 3, -1)
    top = np.argpartition(np.einsum("fcp,fcp->fp", flat, flat), -TOP, 1)[:, -TOP:]
    centre = np.round(np.median(np.stack([top % width, top // width], 2), 1)).astype(np.intp)
    residual = _residual(excess.mean(1), centre)
    contrast = _usual_contrast(np.take_along_axis(flat, top[:, None], 2).mean(2, np.float64), residual)
    size = float(contrast @ contrast)
    scale = 1 / size if size > MIN_CONTRAST**2 else 0.0
    cover = np.tensordot(excess, (contrast * scale).astype(np.float32), (1, 0))
    amplitude = np.take_along_axis(cover.reshape(count, -1), top, 1).mean(1, np.float64)
    mask = _crop(cover, centre) / np.maximum(amplitude, MIN_AMPLITUDE)[:, None, None]
    return _Frames(
        background=background.astype(float),
        contrast=contrast,
        mask=mask.clip(0, 1),
        corner=centre - HALF,
        amplitude=amplitude,
        residual=residual,
        hidden=hidden,
    )


def _usual_contrast(contrast: Floats, residual: Floats) -> Floats:
    """The usual one ``[3]`` of ``[F, 3]``: the median over the frames that are neither faded nor noisy."""
    size = np.linalg.norm(contrast, axis=1)
    calm = residual <= max(NOISE_LIMIT, float(np.quantile(residual, 0.3)))
    usual = float(np.quantile(size[calm], 0.65))
    kept = calm & (abs(size - usual) <= 0.25 * usual)
    return np.asarray(np.median(contrast[kept if kept.any() else calm], 0))


def _residual(brightness: Array, centre: NDArray[np.intp]) -> Floats:
    """Standard deviation ``[F]`` of ``[F, H, W]`` outside the crop around each centre."""
    far_x = abs(np.arange(brightness.shape[2]) - centre[:, :1]) > HALF
    far_y = abs(np.arange(brightness.shape[1]) - centre[:, 1:]) > HALF
    weight = (far_y[:, :, None] | far_x[:, None, :]).astype(np.float32)
    total = np.maximum(weight.sum((1, 2)), 1)
    mean = (weight * brightness).sum((1, 2)) / total
    square = (weight * brightness**2).sum((1, 2)) / total
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)), np.float64)


def _crop(cover: Array, centre: NDArray[np.intp]) -> Floats:
    """Squares ``[F, S, S]`` of ``[F, H, W]`` around the centres, zero outside the picture."""
    padded = np.pad(cover, ((0, 0), (HALF, HALF), (HALF, HALF)))
    rows, columns = (centre[:, i, None] + np.arange(2 * HALF + 1) for i in (1, 0))
    frame = np.arange(len(cover))[:, None, None]
    return np.asarray(padded[frame, rows[:, :, None], columns[:, None, :]], np.float64)


def _centre(weight: Floats) -> Floats:
    """Centroids ``[F, 2]`` (x, y) of masks ``[F, S, S]``; zero for an empty mask."""
    total = np.maximum(weight.sum((1, 2)), 1e-6)
    return np.stack([weight.sum(axis) @ np.arange(weight.shape[1]) / total for axis in (1, 2)], 1)


def _softness(mask: Floats) -> Floats:
    """Edge softness ``[F]`` relative to size, of masks ``[F, S, S]``."""
    kept = np.where(mask > 0.1, mask, 0)
    return np.asarray((kept * (1 - kept)).sum((1, 2)) / np.sqrt(np.maximum(kept.sum((1, 2)), 1)))


def _moments(mask: Floats) -> Floats:
    """Normalised central moments ``[F, 4]`` of sharpened masks ``[F, S, S]``: mixed, fourth, second, skew."""
    sharp = np.clip((mask - 0.35) / 0.3, 0, 1)
    centre, axis = _centre(sharp), np.arange(mask.shape[1])
    x, y = axis - centre[:, :1], axis - centre[:, 1:]
    area = np.maximum(sharp.sum((1, 2)), 1)
    across, down = sharp.sum(1) / area[:, None], sharp.sum(2) / area[:, None]
    xx = np.maximum((across * x**2).sum(1), 1e-3)
    yy = np.maximum((down * y**2).sum(1), 1e-3)
    mixed = ((sharp @ (x**2)[:, :, None])[:, :, 0] * y**2).sum(1) / area
    fourth = ((across * x**4).sum(1) / xx**2 + (down * y**4).sum(1) / yy**2) / 2
    return np.stack([mixed / (xx * yy), fourth, 4 * (xx + yy) / area, (down * y**3).sum(1) / yy**1.5], 1)


@lru_cache(maxsize=1)
def _references() -> tuple[dict[str, Floats], dict[str, float]]:
    """Moments ``[N, 4]`` of every shape over radii, places and blurs; edge softness at sigma 0.9 px."""
    places = 32 + np.array([[0, 0], [0.5, 0.0], [0.0, 0.5], [0.3, 0.7]])
    moments, softness = {}, {}
    for shape in world.SHAPES:
        sharp = np.concatenate([world.coverage(shape, places, radius) for radius in (7.0, 8.0, 9.0)])
        blurred = [world.blur(sharp[:, None], sigma)[:, 0] for sigma in (0.5, 0.9, 1.4)]
        crops = [c[:, 32 - HALF : 33 + HALF, 32 - HALF : 33 + HALF] for c in (sharp, *blurred)]
        moments[shape] = _moments(np.concatenate(crops))
        softness[shape] = float(_softness(crops[2]).mean())
    return moments, softness


def _shape(frames: _Frames, grid: Floats) -> tuple[str, Floats]:
    """The shape with the nearest moments in the seven best frames; edge softness ``[F]`` relative to it."""
    softness, (every, usual) = _softness(frames.mask), _references()
    best = np.argsort(softness + 100.0 * (~frames.clear | (grid > BLOCKS_LIMIT)))[:7]
    seen = np.median(_moments(frames.mask[best]), 0)
    shape = min(every, key=lambda s: float((((every[s] - seen) / MOMENT_SCALE) ** 2).sum(1).min()))
    return shape, softness / usual[shape]


def _grid(frames: _Frames) -> Floats:
    """Share ``[F]`` of the mask's gradient on the 8-pixel grid, the smaller one of both axes."""
    shares = []
    for axis in (1, 2):
        slope = abs(np.diff(frames.mask, axis=axis)).sum(3 - axis)
        place = frames.corner[:, 2 - axis, None] + np.arange(1, 2 * HALF + 1)
        shares.append((slope * (place % 8 == 0)).sum(1) / np.maximum(slope.sum(1), 1e-6))
    return np.asarray(np.minimum(*shares))


def _nearest(palette: Mapping[str, tuple[float, float, float]], colour: Floats) -> str:
    return min(palette, key=lambda name: float(((np.asarray(palette[name]) - colour) ** 2).sum()))


def _fill(path: Floats) -> Floats:
    """The path with its gaps filled in linearly; all zero if nothing was ever visible."""
    known, time = ~np.isnan(path[:, 0]), np.arange(len(path))
    if not known.any():
        return np.zeros_like(path)
    return np.stack([np.interp(time, time[known], path[known, i]) for i in (0, 1)], 1)


def _bend(path: Floats) -> Floats:
    """Length ``[F - 2]`` of the path's second difference, pixels."""
    return np.asarray(np.linalg.norm(np.diff(path, 2, axis=0), axis=1))


def _sure(path: Floats, clear: Bools) -> Bools:
    """A mask ``[F]`` of centroids of clear frames in a smooth run of four; everything if there are fewer than five."""
    pair = sliding_window_view(_bend(path), 2).max(1)
    run = sliding_window_view(np.pad(pair, 3, constant_values=np.inf), 4).min(1)
    sure = clear & (run < SURE_BEND)
    return sure if sure.sum() >= 5 else np.ones_like(sure)


def _speed(path: Floats, sure: Bools) -> float:
    """Usual speed, pixels a frame: frozen frames and jumps do not count."""
    pairs = sure[2:] & sure[:-2]
    lag = 2 if pairs.sum() >= 3 else min(6, len(path) - 1)
    pace = np.linalg.norm(path[lag:] - path[:-lag], axis=1) / lag
    pace = pace[pairs] if lag == 2 else pace
    moving = pace > 0.4 * np.quantile(pace, 0.75)
    return float(np.median(pace[moving] if moving.any() else pace))


def _smooth(path: Floats, sure: Bools) -> Floats:
    """The path smoothed at its sure points: a parabola in time through them, by least absolute deviations."""
    time = np.linspace(-1, 1, len(path))[sure]
    basis, points, weight = np.stack([time**0, time, time**2], 1), path[sure], np.ones(len(time))
    for _ in range(8):
        left = basis.T * weight
        fit = basis @ np.linalg.solve(left @ basis + 1e-9 * np.eye(3), left @ points)
        weight = 1 / np.maximum(np.linalg.norm(points - fit, axis=1), 0.3)
    return np.asarray(fit)


def _motion(fit: Floats) -> str:
    """The word for a fitted path: circling if it leaves its main axis, else the direction along this axis."""
    extent = np.ptp(fit, axis=0)
    main = int(extent.argmax())
    if extent[1 - main] > max(MIN_ARC, MIN_ARC_RATIO * extent[main]):
        return "circling"
    names = (("moving left", "moving right"), ("moving up", "moving down"))
    return names[main][int(fit[-1, main] > fit[0, main])]


def _flickers(frames: _Frames) -> bool:
    """Brightness of shape or background goes up and down in consecutive frames."""
    turn = np.diff(np.stack([frames.amplitude, 2 * frames.background.mean(1)], 1), 2, axis=0) / 2
    strong = (np.minimum(abs(turn[1:]), abs(turn[:-1])) > FLICKER_LIMIT) & (turn[1:] * turn[:-1] < 0)
    return bool((strong[1:] & strong[:-1]).any())


def _pixel_flaws(frames: _Frames, softness: Floats, grid: Floats) -> tuple[str, ...]:
    """Flaws of the pictures; softness ``[F]`` is relative to a clean shape."""
    mass = frames.mask.sum((1, 2)) * frames.amplitude
    dim = (mass < FADE_LIMIT * np.quantile(mass, 0.65)) & (frames.amplitude < FADE_LIMIT)
    gone = (dim | (frames.amplitude < MIN_AMPLITUDE)) & ~frames.hidden
    blocky = (grid > BLOCKS_LIMIT) & (softness > 1.15) & (frames.amplitude > MIN_AMPLITUDE) & ~frames.hidden
    fired = {"flicker": _flickers(frames), "blocks": blocky.sum() >= 2}
    limit = np.clip(1.3 * np.quantile(softness, 0.3), *BLUR_LIMITS)
    fired["blur"] = not fired["blocks"] and (frames.clear & (softness > limit)).sum() >= 2
    fired["fade"] = not fired["flicker"] and gone.sum() >= 2
    fired["noise"] = (frames.residual > NOISE_LIMIT).sum() >= 2
    return tuple(name for name in world.FLAWS if fired.get(name))


def _span(hidden: Bools) -> slice:
    """The frames from the first that is not hidden to the last; all of them where those are too few to judge motion."""
    shown = np.flatnonzero(~hidden)
    return slice(shown[0], shown[-1] + 1) if len(shown) and shown[-1] - shown[0] >= 5 else slice(None)


def _path_flaws(path: Floats, speed: float) -> tuple[str, ...]:
    """The flaw of the motion, if any; of a hold and a jump together, the one that comes first is named."""
    if speed < STILL_LIMIT:
        return ("freeze",)
    if (_bend(path) > JITTER_LIMIT).sum() >= 3:
        return ("jitter",)
    slope = np.tensordot(sliding_window_view(path, 5, 0), np.arange(-2, 3) / 10, (2, 0))
    held = np.flatnonzero(np.linalg.norm(slope, axis=1) < FREEZE_LIMIT * speed)
    jumps = np.flatnonzero(np.linalg.norm(np.diff(path, axis=0), axis=1) > speed + DROP_LIMIT)
    if len(held) and (not len(jumps) or held[0] + 1 < jumps[0]):
        return ("freeze",)
    return ("drop",) if len(jumps) else ()
