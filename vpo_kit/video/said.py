"""What ffmpeg says of a file: of its streams before it begins, of each frame as it comes, and of what goes wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction

ALPHA = re.compile(r"yuva|rgba|bgra|argb|abgr|gbrap|ya\d|ayuv|vuya|pal8")
WATCHED = "[showinfo@vpo @ "
FRAME = re.compile(r"n: *\d+ pts: *(\S+) (.*)")
COLOUR = re.compile(r"color_range:.*")
TICK = re.compile(r"config in time_base: (\d+)/(\d+)")
INPUT = re.compile(r"^\[info\] Input #(\d+), ")
STREAM = re.compile(r"^\[info\] +Stream #(\d+):\d+.*?: Video: (.*)")
TURNED = re.compile(r"rotation of (-?\d+(?:\.\d+)?) degrees")
PREFIX = re.compile(r"^(?:\[[^\]]*\] *)+")
TROUBLE = re.compile(r"\[(?:error|fatal)\]")
BESIDE = re.compile(r"^\[(?:null|framecrc|image2pipe) @")
"""Complaints about what we do with a stream, not about the stream."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the pictures of a stream are meant."""

    pixel_format: str = ""
    sar: Fraction = Fraction(1)
    """Width of a pixel over its height; 1 where it is not said."""
    interlaced: bool = False
    transfer: str = "unknown"
    primaries: str = "unknown"
    matrix: str = "unknown"

    @property
    def alpha(self) -> bool:
        """Whether the pixels have an alpha channel; those of every gif have."""
        return bool(ALPHA.match(self.pixel_format))


@dataclass(frozen=True)
class FrameFacts:
    """When a frame is shown and for how long, in ticks of the stream (None and 0: not said), and how it is meant."""

    time: int | None
    length: int
    look: Look


@dataclass(frozen=True, kw_only=True)
class VideoStream:
    """The first video of a file by its header, for what stands in no frame."""

    codec: str
    look: Look
    turned: bool = False
    alpha_beside: bool = False
    """Whether alpha is a stream of its own beside the picture, as in webm; most decoders leave it out."""
    size: tuple[int, int] = (0, 0)
    """Width and height as they are stored; zeros where they are not said."""
    sideways: bool = False

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height as they are shown: upright, in square pixels."""
        (width, height), sar = self.size, self.look.sar
        found = round(width * max(Fraction(1), sar)), round(height * max(Fraction(1), 1 / sar))
        return found[::-1] if self.sideways else found


@dataclass(kw_only=True)
class Said:
    """The lines of one run; `hear` takes them one by one."""

    frames: list[FrameFacts] = field(default_factory=list)
    tick: Fraction | None = None
    """Seconds of one tick."""
    streams: dict[int, VideoStream] = field(default_factory=dict)
    """The streams by the number of the file among those that were opened."""
    troubles: list[str] = field(default_factory=list)
    _open: int | None = None
    _half: FrameFacts | None = None

    def hear(self, line: str) -> None:
        """One more line. ffmpeg's threads speak at once, so words about a frame may begin anywhere in it."""
        line, *watched = line.split(WATCHED)
        for words in watched:
            self._hear_frame(PREFIX.sub("", f"[{words}"))
        if TROUBLE.search(line) and not BESIDE.match(line):
            self.troubles.append(PREFIX.sub("", line))
        else:
            self._hear_header(line)

    def end(self) -> None:
        """Take it that there are no more lines."""
        if self._half is not None:
            self.frames.append(self._half)
            self._half = None

    def _hear_frame(self, words: str) -> None:
        if found := FRAME.match(words):
            self.end()
            self._half = _frame(found[1], found[2])
        elif COLOUR.match(words) and self._half is not None:
            values = dict(part.split(":", 1) for part in words.split() if ":" in part)
            names = [values.get(f"color_{name}", "unknown") for name in ("trc", "primaries", "space")]
            look = replace(self._half.look, transfer=names[0], primaries=names[1], matrix=names[2])
            self._half = replace(self._half, look=look)
            self.end()
        elif self.tick is None and (found := TICK.match(words)) and int(found[1]) and int(found[2]):
            self.tick = Fraction(int(found[1]), int(found[2]))

    def _hear_header(self, line: str) -> None:
        if found := INPUT.match(line):
            self._open = int(found[1])
        elif line.startswith("[info] Output #"):
            self._open = None
        elif self._open is None:
            return
        elif (found := STREAM.match(line)) and "(attached pic)" not in line:
            self.streams.setdefault(self._open, _stream(found[2]))
        elif self._open in self.streams:
            stream = self.streams[self._open]
            turned = TURNED.search(line)
            beside = re.search(r"\balpha_mode *: *1\b", line, re.IGNORECASE)
            self.streams[self._open] = replace(
                stream,
                turned=stream.turned or bool(turned and float(turned[1])),
                sideways=stream.sideways or bool(turned and round(float(turned[1]) / 90) % 2),
                alpha_beside=stream.alpha_beside or bool(beside),
            )

    @property
    def reason(self) -> str:
        """The reason why nothing came of it, in ffmpeg's first words."""
        if any("matches no streams" in line for line in self.troubles):
            return "there is no video in it"
        line = next(iter(self.troubles), "no frames")
        return re.sub(r"^Error opening input: ", "", line)[:200]


def _frame(time: str, rest: str) -> FrameFacts:
    fields = dict(re.findall(r"(\w+): *(\S+)", rest))
    length = fields.get("duration", "0")
    shape = re.fullmatch(r"(\d+)/(\d+)", fields.get("sar", ""))
    sar = Fraction(int(shape[1]), int(shape[2])) if shape and int(shape[1]) and int(shape[2]) else Fraction(1)
    look = Look(pixel_format=fields.get("fmt", ""), sar=sar, interlaced=fields.get("i", "P") in ("T", "B"))
    ticks = int(time) if re.fullmatch(r"-?\d+", time) else None
    return FrameFacts(ticks, int(length) if length.isdigit() else 0, look)


def _stream(words: str) -> VideoStream:
    """The stream that a line describes: ``h264 (High), yuv420p10le(tv, bt2020nc/bt2020/smpte2084, top first), 64x64
    [SAR 2:1 DAR 2:1], ...``.
    """
    codec = words.split(" ", 1)[0].rstrip(",")
    picture = re.search(r", (\w+)(?:\(([^)]*)\))?, (\d+)x(\d+)", words)
    about = (picture[2] or "") if picture else ""
    shape = re.search(r"SAR (\d+):(\d+)", words)
    sar = Fraction(int(shape[1]), int(shape[2])) if shape and int(shape[1]) and int(shape[2]) else Fraction(1)
    colours = re.search(r"(\S+)/(\S+)/([^\s,]+)", about)
    matrix, primaries, transfer = colours.groups() if colours else ("unknown",) * 3
    look = Look(
        pixel_format=picture[1] if picture else "",
        sar=sar,
        interlaced=bool(re.search(r"\bfirst\b", about)),
        transfer=transfer,
        primaries=primaries,
        matrix=matrix,
    )
    size = (int(picture[3]), int(picture[4])) if picture else (0, 0)
    return VideoStream(codec=codec, look=look, size=size)
