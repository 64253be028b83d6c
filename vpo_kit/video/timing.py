"""When the frames of a video are shown, and which of them stand on a grid of even times. No files, no pixels.

What a container says of itself (count, rate, duration, start) is not asked: all follows from the frames' own times.
Legend: ``F`` frames; times are seconds from the first frame on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median
from typing import TypeVar

from vpo_kit.errors import DataError

T = TypeVar("T")

EVEN = 0.45
"""How far, in steps, a frame may lie from its place on an even grid. Containers round times to thousandths, gifs to
hundredths of a second; below a half each place holds one frame, so that none is dropped or shown twice."""
MOST_HELD = 10
"""A grid holds at most so many times the frames of the file: a damaged time is no reason to fill the memory."""
NEAR = 0.005
"""Rates that differ by no more than this share are one rate: 24 and 24000/1001 are, 24 and 25 are not."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The times of a video's frames, and the even grid on which they are given out: `count` frames at `fps`.

    ``count / fps`` is the duration. Where the frames are `even` the grid holds each of them once.
    """

    times: tuple[float, ...]
    duration: float
    fps: float
    count: int
    even: bool
    tick: float
    """Seconds to which the times are rounded."""
    said: str | None = None
    """What a person should know of it."""

    @property
    def picks(self) -> list[int]:
        """The frame of the file that stands at each place of the grid."""
        if self.even:
            return list(range(self.count))
        frames = zip(self.times, range(len(self.times)), strict=True)
        return list(at(grid(0.0, self.count, self.fps), frames, self.tick))


def timing(ticks: Sequence[int | None], last: int, tick: Fraction) -> Timing:
    """The timing of a clip by the times of all frames in units of `tick` seconds, None where there is none, and the
    last one's length.

    The last frame is shown for the usual step between frames, or for its own length where that is plainly more. Raises
    `DataError` for frames without times.
    """
    known = [time for time in ticks if time is not None]
    if len(ticks) == 1:
        return Timing(
            times=(0.0,),
            duration=1.0,
            fps=1.0,
            count=1,
            even=True,
            tick=float(tick),
            said="a single frame, taken for one second",
        )
    steps = [Fraction(b - a) for a, b in pairwise(ticks) if a is not None and b is not None]
    forward = [step for step in steps if step > 0]
    if not forward:
        raise DataError("its frames have no times")
    if len(known) < len(ticks) or min(steps) < 0:
        step = _usual(forward)
        shown = _timing([i * step for i in range(len(ticks))], Fraction(0), tick)
        return Timing(**{**vars(shown), "said": f"its times jump: frames are taken as {shown.fps:.4g} a second"})
    return _timing([Fraction(time) for time in known], Fraction(last), tick)


def _timing(ticks: Sequence[Fraction], last: Fraction, tick: Fraction) -> Timing:
    steps = [b - a for a, b in pairwise(ticks)]
    mean = (ticks[-1] - ticks[0]) / len(steps)
    places = ((time - ticks[0]) / mean for time in ticks)
    usual = _usual([step for step in steps if step > 0])
    even = all(abs(place - i) < EVEN for i, place in enumerate(places)) and last <= mean * 3 / 2
    times = tuple(float((time - ticks[0]) * tick) for time in ticks)
    if even:
        fps = _rate(mean, steps, tick)
        return Timing(
            times=times, duration=float(len(ticks) / fps), fps=float(fps), count=len(ticks), even=True, tick=float(tick)
        )
    duration = (ticks[-1] - ticks[0] + (last if last > usual * 3 / 2 else usual)) * tick
    count = max(1, min(round(duration / (usual * tick)), MOST_HELD * len(ticks)))
    return Timing(
        times=times, duration=float(duration), fps=float(count / duration), count=count, even=False, tick=float(tick)
    )


def _rate(mean: Fraction, steps: Sequence[Fraction], tick: Fraction) -> Fraction:
    """Frames a second of an even clip. Where steps differ by one tick, its times are rounded: then a whole rate, or one
    of television's, that would be rounded to them is meant.
    """
    fps = 1 / (mean * tick)
    if max(steps) - min(steps) != 1:
        return fps
    whole = Fraction(max(1, round(fps)))
    meant = (whole, whole * Fraction(1000, 1001))
    return next((rate for rate in meant if abs(1 / (rate * tick) - mean) * len(steps) < 1), fps)


def _usual(steps: Sequence[Fraction]) -> Fraction:
    """The mean of the steps within a quarter of their median: rounding cancels, holds and gaps do not count."""
    middle = median(steps)
    near = [step for step in steps if abs(step - middle) <= middle / 4]
    return sum(near, Fraction(0)) / len(near) if near else middle


def grid(start: float, count: int, fps: float) -> list[float]:
    """`count` times from `start` on."""
    return [start + i / fps for i in range(count)]


def places(duration: float, fps: float) -> int:
    """How many times of a grid at `fps` lie inside a video; rounding of its duration adds none."""
    return max(0, math.ceil(duration * fps - 0.02))


def at(wanted: Sequence[float], frames: Iterable[tuple[float, T]], tick: float) -> Iterator[T]:
    """The newest frame that has begun by each of the rising times `wanted`; no frame is asked for needlessly.

    Times are rounded to `tick`, so a frame may seem to begin a little late: it has begun if it does so within a tick,
    or within a tenth of its distance to the frame before, whichever is less. Before the first frame there is the first
    one, after the last one the last.
    """
    place, before = 0, None
    for time, frame in frames:
        if before is not None:
            slack = min(tick, (time - before[0]) / 10)
            while place < len(wanted) and time > wanted[place] + slack:
                yield before[1]
                place += 1
            if place == len(wanted):
                return
        before = time, frame
    if before is not None:
        for _ in wanted[place:]:
            yield before[1]
