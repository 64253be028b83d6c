"""Real clips: the windows of the videos of a folder, each with its caption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from vpo_kit import content, files, plain
from vpo_kit.clips.captions import Caption, captions
from vpo_kit.clips.index import IndexedFile, Progress, look_through
from vpo_kit.errors import DataError
from vpo_kit.inputs import Inputs, cropped
from vpo_kit.models.buckets import best
from vpo_kit.models.settings import Settings, Size
from vpo_kit.video import SUFFIXES, Extent, Window, read_window

NOT_READ = frozenset({".wmv", ".flv", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".ogv", ".3gp", ".vob"})
"""Videos by their names, of kinds that are passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One window of a video file, with its caption; it is read at `height` x `width` pixels."""

    path: Path
    prompt: str
    window: Window
    height: int
    width: int
    name: str
    """The file relative to its folder, and where the window starts in seconds: ``a/b.mp4@5.06``."""
    sha256: str
    """The SHA-256 of the file, hexadecimal."""

    @property
    def key(self) -> str:
        """What it is known by, whatever its file is called and wherever that lies."""
        return content.key(self.sha256, self.prompt, self.window.start, self.window.frames, self.window.fps)

    @property
    def inputs(self) -> Inputs:
        """What a video like it is made from, with its own first frame as the picture."""
        return Inputs(self.prompt, FirstFrame(self))

    @property
    def size(self) -> Size:
        """The shape that it is read at."""
        return Size(self.window.frames, self.height, self.width)

    def read(self) -> Tensor:
        """``[F, 3, H, W]`` in [0, 1]. Raises `DataError`."""
        return read_window(self.path, self.window, self.height, self.width)


@dataclass(frozen=True)
class FirstFrame:
    """A clip's first frame, as a picture."""

    clip: Clip

    @property
    def key(self) -> str:
        """The clip's."""
        return self.clip.key

    def read(self, height: int, width: int) -> Tensor:
        """``[3, H, W]`` in [0, 1]. Raises `DataError`."""
        return read_window(self.clip.path, replace(self.clip.window, frames=1), height, width)[0]


@dataclass(frozen=True)
class ClipFolder:
    """The clips of a folder that are long enough, and lines for people."""

    clips: list[Clip]
    skipped: list[str]
    """A line for each file that was left out."""
    notices: list[str]
    """A line for each file whose pictures are treated, or that is damaged and used as far as it goes."""
    cropped: dict[str, float]
    """The share of its pictures that each file loses where they are cropped; nothing where its shape is not known."""


def read_folder(
    folder: Path,
    settings: Settings,
    max_windows: int | None = None,
    progress: Progress = lambda done, total: None,
    buckets: Sequence[Size] = (),
) -> ClipFolder:
    """All clips of `folder`: non-overlapping windows of ``settings.frames`` frames at ``settings.fps``; with `buckets`
    each file is cut for the one that fits it best.

    Captions come from ``metadata.jsonl`` or ``metadata.csv`` (``file_name`` and ``text``, ``caption`` or ``prompt``),
    else from a ``.txt`` beside each video. `progress` is called while files that are not in the index are looked
    through. Raises `DataError` when there is no usable clip.
    """
    listed, linked = _apart(folder)
    known = look_through(folder, [name for name, usable in listed if isinstance(usable, str)], progress)
    clips: list[Clip] = []
    skipped: list[str] = []
    notices: dict[str, str] = {}
    lost: dict[str, float] = {}
    for name, usable in listed:
        try:
            if isinstance(usable, DataError):
                raise usable
            cut = list(cut_windows(folder / name, name, usable, known.get(name), settings, max_windows, buckets))
            clips.extend(cut)
            found = known[name].found
            if isinstance(found, Extent) and found.width and found.height:
                lost[str(folder / name)] = cropped((found.width, found.height), cut[0].height, cut[0].width)
            if isinstance(found, Extent) and found.notice:
                notices[name] = f"{folder / name}: {found.notice}"
        except DataError as error:
            skipped.append(str(error))
    if not clips:
        reasons = f": {(skipped + linked)[0]}" if skipped or linked else f": {', '.join(sorted(SUFFIXES))} are read"
        raise DataError(f"{folder} holds no usable clip{reasons}")
    return ClipFolder(clips, skipped, [*notices.values(), *linked, *_passed_over(folder)], lost)


class _OutsideError(DataError):
    """A name, or a link, leads out of the folder."""


def _apart(folder: Path) -> tuple[list[tuple[str, str | DataError]], list[str]]:
    """What `named` gives but for files outside the folder, and a line on how many those are."""
    listed = named(folder)
    outside = [str(found) for _, found in listed if isinstance(found, _OutsideError)]
    if len(outside) < 2:
        return listed, []
    line = f"left out: {len(outside)} files that lie outside {folder}, whatever links lead there: {outside[0]}"
    return [(name, found) for name, found in listed if not isinstance(found, _OutsideError)], [line]


def named(folder: Path) -> list[tuple[str, str | DataError]]:
    """The files that a folder names, each with its caption in one line or why there is nothing to be looked through.

    Raises `DataError` where there is no folder, or its listing is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: --videos takes a folder of clips")
    return [(name, _usable(folder, name, caption)) for name, caption in captions(folder)]


def _usable(folder: Path, name: str, caption: Caption) -> str | DataError:
    """The caption in one line, or why there is nothing to be looked through."""
    path = folder / name
    try:
        inside, there = files.inside(folder, path), path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return DataError(f"{folder} names a file that cannot be one: {name[:60]!r}")
    if not inside:
        return _OutsideError(f"{name} lies outside {folder}")
    if not there:
        return DataError(f"{path} is missing")
    if isinstance(caption, DataError):
        return DataError(f"{path} has no caption: {caption}")
    if caption is None or not caption.strip():
        where = f"metadata.jsonl, or into {path.with_suffix('.txt').name}"
        return DataError(f"{path} has no caption: write it into {where}")
    return plain.one_line(caption)


def cut_windows(
    path: Path,
    name: str,
    caption: str,
    known: IndexedFile | None,
    settings: Settings,
    max_windows: int | None,
    buckets: Sequence[Size] = (),
) -> Iterator[Clip]:
    """At most `max_windows` windows of one file, as `read_folder` cuts them. Raises `DataError` for a file that has
    none.
    """
    if known is None:
        raise DataError(f"{path} cannot be opened")
    found = known.found
    if isinstance(found, str):
        raise DataError(f"{path} {found}")
    shapes, rate = list(buckets) or [settings.size], settings.fps
    size = best(shapes, (found.width, found.height), lambda shape: found.windows(shape.frames, rate)[0] > 0)
    if size is None:
        wanted = f"{min(shape.frames for shape in shapes)} frames at {rate:g} a second"
        there = "a single frame" if found.frames == 1 else f"{found.duration:.2f} s of video"
        raise DataError(f"{path} is shorter than {wanted}: it holds {there}")
    count, fps = found.windows(size.frames, rate)
    for i in range(min(count, max_windows or count)):
        window = Window(i * (size.frames / fps), size.frames, fps, found.origin)
        yield Clip(
            path=path,
            prompt=caption,
            window=window,
            height=size.height,
            width=size.width,
            name=f"{name}@{window.start:.2f}",
            sha256=known.sha256,
        )


def _passed_over(folder: Path) -> list[str]:
    """Lines where a folder without a listing has videos, or linked folders, that are not read."""
    if any((folder / listing).is_file() for listing in ("metadata.jsonl", "metadata.csv")):
        return []
    there = list(folder.rglob("*"))
    kinds = Counter(path.suffix.lower() for path in there if path.suffix.lower() in NOT_READ)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    lines = [f"{folder}: files of kinds that are not read are passed over: {counts}"] if kinds else []
    if linked := sorted(path.relative_to(folder).as_posix() for path in there if path.is_symlink() and path.is_dir()):
        lines.append(f"{folder}: linked folders are not looked into: {len(linked)}, {linked[0]} for one")
    return lines
