"""Real clips: any `videofolder`, or a folder of videos with a text file beside each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vpo_kit.errors import DataError
from vpo_kit.models.base import Settings
from vpo_kit.video import SUFFIXES, Window, read_window, seconds


@dataclass(frozen=True)
class Clip:
    """One window of a video file, with its caption."""

    path: Path
    prompt: str
    window: Window
    name: str
    """The file relative to its folder, and where the window starts in seconds: ``a/b.mp4@5.06``."""

    def read(self, settings: Settings) -> Tensor:
        """``[F, 3, H, W]`` in [0, 1] at the size of `settings`. Raises `DataError`."""
        return read_window(self.path, self.window, settings.height, settings.width)


@dataclass(frozen=True)
class ClipFolder:
    """The clips of a folder that are long enough, and a line for each file that was left out."""

    clips: list[Clip]
    skipped: list[str]


def read_folder(folder: Path, settings: Settings, max_windows: int | None = None) -> ClipFolder:
    """All clips of `folder`: non-overlapping windows of ``settings.frames`` frames at ``settings.fps``.

    Captions come from ``metadata.jsonl`` or ``metadata.csv`` (``file_name``, ``text``), else from a ``.txt`` beside
    each video. Raises `DataError` when there is no usable clip.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: --videos takes a folder of clips")
    clips: list[Clip] = []
    skipped: list[str] = []
    for name, caption in _captions(folder):
        try:
            clips.extend(_windows(folder, name, caption, settings, max_windows))
        except DataError as error:
            skipped.append(str(error))
    if not clips:
        reasons = f": {skipped[0]}" if skipped else f": {', '.join(sorted(SUFFIXES))} are read"
        raise DataError(f"{folder} holds no usable clip{reasons}")
    return ClipFolder(clips, skipped)


def _windows(
    folder: Path, name: str, caption: str | None, settings: Settings, max_windows: int | None
) -> Iterator[Clip]:
    path = folder / name
    try:
        inside, there = path.resolve().is_relative_to(folder.resolve()), path.is_file()
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        raise DataError(f"{folder} names a file that cannot be one: {name[:60]!r}") from error
    if not inside:
        raise DataError(f"{name} lies outside {folder}")
    if not there:
        raise DataError(f"{path} is missing")
    if caption is None or not caption.strip():
        raise DataError(f"{path} has no caption: write it into metadata.jsonl, or into {path.with_suffix('.txt').name}")
    length = settings.frames / settings.fps
    # half a frame of slack: durations are rounded in many containers
    count = int((seconds(path) + 0.5 / settings.fps) / length)
    if count == 0:
        raise DataError(
            f"{path} is shorter than {length:.2f} s ({settings.frames} frames at {settings.fps:g} a second)"
        )
    for i in range(min(count, max_windows or count)):
        window = Window(i * length, settings.frames, settings.fps)
        yield Clip(path, " ".join(caption.split()), window, f"{name}@{window.start:.2f}")


def _captions(folder: Path) -> Iterator[tuple[str, str | None]]:
    """File names relative to the folder with their captions, in a fixed order."""
    for listing, parse in ((folder / "metadata.jsonl", _json_lines), (folder / "metadata.csv", _csv_rows)):
        if listing.is_file():
            yield from parse(listing)
            return
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        text = path.with_suffix(".txt")
        caption = text.read_text(encoding="utf-8-sig", errors="replace") if text.is_file() else None
        yield path.relative_to(folder).as_posix(), caption


def _json_lines(path: Path) -> Iterator[tuple[str, str | None]]:
    for number, line in enumerate(_read(path).splitlines(), 1):
        try:
            row = json.loads(line)
            name, caption = row["file_name"], row.get("text")
            if not isinstance(name, str) or not isinstance(caption, str | None):
                raise TypeError
            yield name, caption
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: each line is a JSON object with file_name and text") from error


def _csv_rows(path: Path) -> Iterator[tuple[str, str | None]]:
    reader = csv.DictReader(io.StringIO(_read(path)))
    try:
        if not {"file_name", "text"} <= set(reader.fieldnames or ()):
            raise DataError(f"{path}: the first line must name the columns file_name and text")
        rows = [(row["file_name"] or "", row["text"]) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    yield from rows


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text") from error
