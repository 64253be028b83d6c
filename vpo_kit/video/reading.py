"""Clips from files, by the frames' own times; whatever the container says of itself is not asked.

Video is float32 ``[F, 3, H, W]`` in [0, 1].
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vpo_kit.errors import DataError
from vpo_kit.video.decoding import Decoded, Pixels, decode
from vpo_kit.video.timing import Timing, at, grid, places, timing

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif"})
EARLIER = 1.0
"""Seconds before a window from which on it is decoded: the frame that is shown at its start may be older than it."""
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**36
"""Bytes of this machine."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a video file: `frames` frames at `fps` a second, from `start` seconds after its first frame on."""

    start: float
    frames: int
    fps: float
    origin: float | None = None
    """The first frame's time by the file's own clock, where it is known: then what lies before `start` is skipped."""


@dataclass(frozen=True, kw_only=True)
class Footage:
    """All of a video file: `frames` ``[F, 3, H, W]`` at `fps`, and what was found and done.

    `times` are those of the file's own frames, in seconds from the first one on. At an even rate these are `frames`;
    else each of `frames`, at even times, is the newest that has begun by then. ``F / fps`` is `duration` in seconds.
    """

    frames: Tensor
    fps: float
    duration: float
    times: tuple[float, ...]
    done: tuple[str, ...] = ()
    """What was done to the pictures, and what a person should know of the file, in words."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self.frames.shape[2], self.frames.shape[3]

    @property
    def notice(self) -> str | None:
        """All that was done, in one line, or None."""
        return "; ".join(self.done) or None


def read_video(path: Path) -> Footage:
    """All frames of a file. Raises `DataError` of one line for what cannot be read."""
    whole = decode(path, _all)
    times, done = whole.timing, whole.done
    if times.said:
        done = [*done, times.said]
    if not times.even:
        shown = f"{times.count} at {times.fps:.4g} a second"
        done = [*done, f"variable frame rate: {len(times.times)} frames are given out as {shown}"]
    frames = _video([whole.frames[i] for i in times.picks])
    return Footage(frames=frames, fps=times.fps, duration=times.duration, times=times.times, done=tuple(done))


def read_window(path: Path, window: Window, height: int, width: int) -> Tensor:
    """A window of a clip as ``[frames, 3, height, width]``: resampled in time, resized to cover, cropped to the centre.

    At each time of the window's grid it has the newest frame that has begun by then. Raises `DataError` when the file
    does not decode or ends before the window does.
    """
    cover = [f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=area", f"crop={width}:{height}"]
    found = None
    if options := seek(window):
        with suppress(DataError):  # of a file that cannot be sought in; its start will tell
            found = decode(path, partial(_some, window=window), seek=options, chain=cover)
    if found is None:
        found = decode(path, partial(_some, window=replace(window, origin=None)), chain=cover)
    if found is None:
        found = _cut(decode(path, _all, chain=cover), window)
    if len(found) < window.frames:
        raise DataError(f"{path} ends after {len(found)} of {window.frames} frames from {window.start:.2f} s on")
    return _video(found)


def seek(window: Window) -> list[str]:
    """The options with which ffmpeg begins a little before a window, where that spares it something."""
    if window.origin is None or window.start <= EARLIER:
        return []
    return ["-seek_timestamp", "1", "-noaccurate_seek", "-ss", f"{window.origin + window.start - EARLIER:.6f}"]


@dataclass(frozen=True)
class _Whole:
    frames: list[Pixels]
    timing: Timing
    done: list[str]


def _all(decoded: Decoded) -> _Whole:
    frames, ticks, last = list[Pixels](), list[int | None](), 0
    for shown in decoded:
        frames.append(shown.pixels)
        ticks.append(shown.time)
        last = shown.length
        _check_memory(decoded.path, len(frames), shown.pixels)
    try:
        found = _Whole(frames, timing(ticks, last, decoded.tick), decoded.done)
    except DataError as error:
        raise DataError(f"{decoded.path} cannot be read: {error}") from error
    _check_memory(decoded.path, found.timing.count, frames[0])
    return found


def _check_memory(path: Path, count: int, pixels: Pixels) -> None:
    """Raises `DataError` for more frames than this machine can hold: bytes, a copy of them, and floats."""
    if 6 * count * pixels.nbytes > MEMORY:
        size = f"{count} frames of {pixels.shape[0]} x {pixels.shape[1]} pixels"
        raise DataError(f"{path} is too long to be read whole: this machine cannot hold {size}: cut it")


class _UnclearError(Exception):
    """The case that only the file as a whole says when its frames are shown."""


class _Stretch:
    """Frames with their seconds from the file's first one, for as long as these can be told one by one."""

    def __init__(self, decoded: Decoded, origin: float | None) -> None:
        self._decoded = decoded
        self._origin = origin
        self._ticks: list[int] = []
        self._last = 0
        self.ended = False

    def __iter__(self) -> Iterator[tuple[float, Pixels]]:
        for frame in self._decoded:
            if frame.time is None or (self._ticks and frame.time < self._ticks[-1]):
                raise _UnclearError
            self._ticks.append(frame.time)
            self._last = frame.length
            yield self._seconds(frame.time), frame.pixels
        self.ended = True

    @property
    def start(self) -> float:
        return self._seconds(self._ticks[0])

    @property
    def end(self) -> float:
        """The time at which the last frame ends. A file of a single frame has no length. Raises `_UnclearError`."""
        if len(self._ticks) == 1:
            if self._origin is not None:
                raise _UnclearError
            return 0.0
        try:
            return self.start + timing(self._ticks, self._last, self._decoded.tick).duration
        except DataError as error:
            raise _UnclearError from error

    def _seconds(self, time: int) -> float:
        origin = float(self._ticks[0] * self._decoded.tick) if self._origin is None else self._origin
        return float(time * self._decoded.tick) - origin


def _some(decoded: Decoded, window: Window) -> list[Pixels] | None:
    """The frames of a window, fewer where the file ends before it does; no more is decoded than it needs.

    None where the times jump, or decoding began later than the window does.
    """
    stretch = _Stretch(decoded, window.origin)
    tick = float(decoded.tick)
    try:
        found = list(at(grid(window.start, window.frames, window.fps), stretch, tick))
        if window.origin is not None and stretch.start > window.start + tick:
            return None
        return found[: _held(window, stretch.end)] if stretch.ended else found
    except _UnclearError:
        return None


def _cut(whole: _Whole, window: Window) -> list[Pixels]:
    wanted = grid(window.start, window.frames, window.fps)
    found = at(wanted, zip(whole.timing.times, whole.frames, strict=True), whole.timing.tick)
    return list(found)[: _held(window, whole.timing.duration)]


def _held(window: Window, end: float) -> int:
    """How many of a window's frames a video has that ends at `end`; one that is shown for no time has one."""
    return max(places(end - window.start, window.fps), int(window.start == end == 0))


def _video(frames: Sequence[Pixels]) -> Tensor:
    """``[F, 3, H, W]`` from pixels in the order of ffmpeg."""
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float().div_(255)
