"""ffmpeg, run as a program of its own: its frames with the time of each, and what it says while it works.

The program is imageio-ffmpeg's. A decoder that crashes on a damaged file so takes nothing else with it, and its build
has the filters for light of high range, which the wheels of PyAV lack (benchmarks/LOG.md has both in figures).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from typing import IO

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from vpo_kit.errors import DataError
from vpo_kit.video.said import FrameFacts, Said

FORMATS = "mov,matroska,webm,gif,avi,mpegts,mpeg,flv,ogg,asf"
"""What a file may be inside, whatever its name. Playlists are not among them: they name other files and addresses."""
MOST_PIXELS = 2**26
"""The most pixels of a frame, 8192 x 8192: a few damaged bytes announce as many as fill any memory."""
WATCH = "showinfo@vpo=checksum=0"
"""The filter that says when each frame is shown; `said` reads its lines."""
RULES = 2
"""The number of the rules, which rises whenever the same file gives other frames than before."""


def version() -> str:
    """What the frames of a file depend on beside the file: for what is kept of them."""
    return f"{RULES} {imageio_ffmpeg.__version__} {os.environ.get('IMAGEIO_FFMPEG_EXE', '')}".strip()


def source(path: Path, *options: str) -> list[str]:
    """The arguments that open a file, and nothing but that file: a name with a colon is no protocol here."""
    safe = ["-protocol_whitelist", "file", "-format_whitelist", FORMATS, "-max_pixels", str(MOST_PIXELS)]
    return [*safe, *options, "-i", f"file:{path}"]


def command(*arguments: str) -> list[str]:
    """A whole command line. Raises `DataError` where there is no ffmpeg."""
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise DataError("there is no ffmpeg to read videos with: pip install imageio-ffmpeg brings one") from error
    return [program, "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """One run to its end."""
    return subprocess.run(command(*arguments), stdin=subprocess.DEVNULL, capture_output=True, check=False)


def has(part: str) -> bool:
    """Whether this ffmpeg has a filter or decoder of that name."""
    return part in _parts()


@cache
def _parts() -> frozenset[str]:
    lines = [
        line for kind in ("-filters", "-decoders") for line in run(kind).stdout.decode(errors="replace").splitlines()
    ]
    return frozenset(words[1] for words in map(str.split, lines) if len(words) > 1)


@dataclass(frozen=True)
class Frame:
    """Pixels ``[H, W, C]`` of 8 bits, and what ffmpeg said of them."""

    pixels: NDArray[np.uint8]
    facts: FrameFacts


class Decoding:
    """A run that decodes one video, frame by frame; it may be left at any time. `said` grows as it goes.

    Frames come as PAM pictures, which say their own size, and each one's line comes before its pixels.
    """

    def __init__(self, *arguments: str, alpha: bool = False) -> None:
        pixels = ["-fps_mode", "passthrough", "-pix_fmt", "rgba" if alpha else "rgb24", "-c:v", "pam"]
        line = command(*arguments, *pixels, "-threads", "1", "-f", "image2pipe", "-")
        self.said = Said()
        self._process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._news = Condition()
        self._ended = False
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Decoding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def __iter__(self) -> Iterator[Frame]:
        assert self._process.stdout is not None
        for number, pixels in enumerate(_pictures(self._process.stdout)):
            with self._news:
                self._news.wait_for(lambda: self._ended or len(self.said.frames) > number)  # noqa: B023
            if number >= len(self.said.frames):
                return
            yield Frame(pixels, self.said.frames[number])
        self._listener.join()

    @property
    def tick(self) -> Fraction:
        """Seconds of one tick of the frames' times, known as soon as there is a frame."""
        with self._news:
            self._news.wait_for(lambda: self._ended or self.said.tick is not None)
        return self.said.tick or Fraction(1, 1000)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._news:
                self.said.hear(line.decode(errors="replace").rstrip())
                self._news.notify()
        with self._news:
            self.said.end()
            self._ended = True
            self._news.notify()


def _pictures(pipe: IO[bytes]) -> Iterator[NDArray[np.uint8]]:
    """``[H, W, C]`` of each whole PAM picture in a stream."""
    while pipe.readline() == b"P7\n":
        header: dict[bytes, int] = {}
        while (line := pipe.readline()) not in (b"ENDHDR\n", b""):
            name, _, value = line.strip().partition(b" ")
            if value.isdigit():
                header[name] = int(value)
        height, width, depth = (header.get(name, 0) for name in (b"HEIGHT", b"WIDTH", b"DEPTH"))
        pixels = np.empty((height, width, depth), np.uint8)
        if not pixels.size or _fill(pipe, pixels) < pixels.size:
            return
        yield pixels


def _fill(pipe: IO[bytes], pixels: NDArray[np.uint8]) -> int:
    """How many bytes of a picture there were."""
    place, done = memoryview(pixels.reshape(-1)), 0  # type: ignore[arg-type]
    while done < len(place) and (count := pipe.readinto(place[done:])):  # type: ignore[attr-defined]
        done += count
    return done
