"""A file's pictures as people are meant to see them, one by one: decoded once where nothing has to be done to them.

Only the frames say what they need, so a file is begun plainly; where its first frame (or a later one) calls for more,
ffmpeg is begun anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vpo_kit.errors import DataError
from vpo_kit.video import ffmpeg
from vpo_kit.video.said import Look, VideoStream
from vpo_kit.video.treatment import Treatment, needed

Pixels = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """RGB ``[H, W, 3]``; when and for how long it is shown, in ticks (None and 0 where the file does not say)."""

    pixels: Pixels
    time: int | None
    length: int


class _OtherTreatmentError(Exception):
    """The frames need more than they get."""

    def __init__(self, treatment: Treatment) -> None:
        super().__init__()
        self.treatment = treatment


class _ToneMappingError(Exception):
    """The case of colours that the filters do not take."""


class Decoded:
    """The frames of one run, to be gone through once and from the first on."""

    def __init__(
        self,
        path: Path,
        run: ffmpeg.Decoding,
        treatment: Treatment,
        plan: Callable[[Look, VideoStream | None], Treatment],
    ) -> None:
        self.path = path
        self.treatment = treatment
        self._run = run
        self._plan = plan
        self._transparent = False

    @property
    def tick(self) -> Fraction:
        """Seconds of one tick."""
        return self._run.tick

    @property
    def done(self) -> list[str]:
        """What was done to the pictures, and whether the file is damaged; whole when the frames are at their end."""
        words = [*self.treatment.said, *(["transparent parts are black"] if self._transparent else [])]
        if self._run.said.troubles:
            words.append(f"damaged: {self._run.said.reason}")
        return words

    def __iter__(self) -> Iterator[Shown]:
        look = None
        for frame in self._run:
            if frame.facts.look != look:
                look = frame.facts.look
                wanted = self._plan(look, self._run.said.streams.get(0))
                if not wanted.same_run(self.treatment):
                    raise _OtherTreatmentError(wanted)
                self.treatment = wanted
            yield Shown(self._on_black(frame.pixels), frame.facts.time, frame.facts.length)
        if look is None:
            if self.treatment.toned is not None:
                raise _ToneMappingError
            raise DataError(f"{self.path} cannot be decoded as a video: {self._run.said.reason}")

    def _on_black(self, pixels: Pixels) -> Pixels:
        if pixels.shape[2] == 3:
            return pixels
        colours, alpha = pixels[..., :3], pixels[..., 3:]
        if alpha.min() == 255:
            return np.ascontiguousarray(colours)
        self._transparent = True
        return ((colours.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)


def decode(path: Path, consume: Callable[[Decoded], T], *, seek: Sequence[str] = (), chain: Sequence[str] = ()) -> T:
    """What `consume` makes of the frames of a file; it may be called again, and may stop early.

    `seek` goes before the file, `chain` is filters behind all that has to be done. Raises `DataError` where there is
    no frame.
    """
    looks: dict[Look, None] = {}  # in the order in which they come
    broken: set[str] = set()

    def plan(look: Look, stream: VideoStream | None) -> Treatment:
        looks[look] = None
        return needed(looks, stream, lambda part: part not in broken and ffmpeg.has(part))

    treatment = Treatment()
    while True:
        decoder = ["-c:v", treatment.decoder] if treatment.decoder else []
        filters = ",".join([ffmpeg.WATCH, *treatment.chain, *chain])
        opened = ffmpeg.source(path, *decoder, *seek)
        try:
            begun = ffmpeg.Decoding("-copyts", *opened, "-map", "0:V:0", "-vf", filters, alpha=treatment.alpha)
        except (OSError, ValueError) as error:  # a name that no program can be given, or no memory for one
            raise DataError(f"{path} cannot be decoded as a video: {error}") from error
        with begun as run:
            try:
                return consume(Decoded(path, run, treatment, plan))
            except _OtherTreatmentError as other:
                treatment = other.treatment
            except _ToneMappingError:
                broken.add("zscale")
                treatment = replace(treatment, toned=None)
