"""How long files are, and what their pictures need, without decoding: many files in one run of ffmpeg.

What the program costs is its start (15 ms), so `scan` opens a batch of files at once and copies their packets, of which
only times are looked at. Nothing a header says of length or rate is used, but every packet has to be there. Where the
packets of a file do not settle it (times missing or twice, damage), its frames are decoded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vpo_kit.errors import DataError
from vpo_kit.video import ffmpeg
from vpo_kit.video.said import Look, Said, VideoStream
from vpo_kit.video.timing import NEAR, Timing, places, timing
from vpo_kit.video.treatment import needed

NONE = -(2**63)
"""ffmpeg's time of a packet that has none."""
DISCARDED, CORRUPT = 4, 2
"""Flags of packets: not to be shown, as before the start of a cut; damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much video a file holds: `frames` of it in `duration` seconds, the first one `origin` on the file's clock.

    `fps` is the rate of its frames where they are `even`, else that of the grid on which they are given out.
    """

    frames: int
    duration: float
    fps: float
    even: bool
    origin: float
    width: int
    height: int
    """Pixels of its pictures as they are shown, made square; 0 where the header does not say it."""
    notice: str | None = None
    """What will be done to its pictures, and what a person should know, in words."""

    def windows(self, frames: int, fps: float) -> tuple[int, float]:
        """How many windows of `frames` frames at `fps` follow each other in it, and the rate to cut them at.

        That is the file's own where the two are one but for a thousandth: at 24 a second, a film of 24000/1001 would
        show its first frame twice. A single frame has no length and makes no window but one of a single frame.
        """
        if self.frames == 1:
            return int(frames == 1), fps
        rate = self.fps if self.even and abs(self.fps / fps - 1) <= NEAR else fps
        return places(self.duration, rate) // frames, rate


def scan(paths: Sequence[Path]) -> list[Extent | str]:
    """The extents of some files, in order, or why one of them cannot be used, to be said behind its name."""
    if not paths:
        return []
    found = _packets(paths)
    if found is not None:
        return [_frames(path) if one is None else one for path, one in zip(paths, found, strict=True)]
    if len(paths) == 1:
        return [_frames(paths[0])]
    middle = len(paths) // 2  # one of them spoils the run of all: the halves tell which
    return [*scan(paths[:middle]), *scan(paths[middle:])]


def _packets(paths: Sequence[Path]) -> list[Extent | None] | None:
    """The extents by packets alone, None for a file whose packets do not settle it; or None where the run failed."""
    opened = [part for path in paths for part in ffmpeg.source(path)]
    taken = [part for i in range(len(paths)) for part in ("-map", f"{i}:V:0")]
    done = ffmpeg.run("-copyts", *opened, *taken, "-c", "copy", "-f", "framecrc", "-")
    said = _heard(done.stderr)
    if done.returncode or said.troubles:
        return None
    lines = done.stdout.decode(errors="replace").splitlines()
    ticks = {int(found[1]): Fraction(found[2]) for line in lines if (found := re.match(r"#tb (\d+): (\d+/\d+)", line))}
    packets: list[list[tuple[int, int]]] = [[] for _ in paths]
    unclear = set(range(len(paths))) - (said.streams.keys() & ticks.keys())
    for line in lines:
        if line.startswith("#"):
            continue
        file, _, time, length, _, _, *flags = (part.strip() for part in line.split(","))
        raised = int(flags[0][2:], 16) if flags and flags[0].startswith("F=") else 0
        if int(time) <= NONE or raised & CORRUPT:
            unclear.add(int(file))
        elif not raised & DISCARDED:
            packets[int(file)].append((int(time), int(length)))
    return [
        None if i in unclear else _by_packets(sorted(found), ticks[i], said.streams[i])
        for i, found in enumerate(packets)
    ]


def _by_packets(packets: list[tuple[int, int]], tick: Fraction, stream: VideoStream) -> Extent | None:
    """The times of frames by the times and lengths of a stream's packets, in order; None where two are at once, or
    there is none.
    """
    times = [time for time, _ in packets]
    if not times or len(set(times)) < len(times):
        return None
    return _extent(timing(times, packets[-1][1], tick), float(times[0] * tick), [stream.look], stream, None)


def _frames(path: Path) -> Extent | str:
    """The extent by decoding every frame; nothing is done with them."""
    watch = ["-map", "0:V:0", "-vf", ffmpeg.WATCH, "-fps_mode", "passthrough", "-f", "null", "-"]
    said = _heard(ffmpeg.run("-copyts", *ffmpeg.source(path), *watch).stderr)
    if not said.frames or said.tick is None or 0 not in said.streams:
        return f"cannot be decoded as a video: {said.reason}"
    ticks = [frame.time for frame in said.frames]
    try:
        found = timing(ticks, said.frames[-1].length, said.tick)
    except DataError as error:
        return f"cannot be read: {error}"
    origin = float((ticks[0] or 0) * said.tick)
    trouble = said.reason if said.troubles else None
    return _extent(found, origin, dict.fromkeys(frame.look for frame in said.frames), said.streams[0], trouble)


def _heard(lines: bytes) -> Said:
    said = Said()
    for line in lines.decode(errors="replace").splitlines():
        said.hear(line)
    said.end()
    return said


def _extent(times: Timing, origin: float, looks: Collection[Look], stream: VideoStream, trouble: str | None) -> Extent:
    treatment = needed(looks, stream, ffmpeg.has)
    words = list(treatment.said)
    if treatment.alpha and stream.codec != "gif":  # whose pixels all have alpha, mostly unused
        words.append("transparent parts are black")
    words += [text for text in (times.said, trouble and f"damaged: {trouble}") if text]
    width, height = stream.shown
    return Extent(
        frames=len(times.times),
        duration=times.duration,
        fps=times.fps,
        even=times.even,
        origin=origin,
        width=width,
        height=height,
        notice="; ".join(words) or None,
    )
