"""What is wrong with a pair set on disk: every wrong pair is named, nothing is changed.

Legend: latents ``[C, T, h, w]``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vpo_kit import plain
from vpo_kit.errors import DataError
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.store import PairSet
from vpo_kit.video import SUFFIXES, read_video

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Checked:
    """One line for each wrong pair, and the shape that the latents of most pairs have."""

    wrong: list[str]
    shape: Shape | None


def pairs(found: PairSet, *, decode: bool = False, tick: Callable[[], None] = lambda: None) -> Checked:
    """Look at every pair's line, files, hashes, latents and labels; with `decode` also at every frame.

    No pair may be there twice, and all latents of a set must have one shape. Where they differ, the shape of most pairs
    is taken for the right one.
    """
    reasons: dict[str, list[str]] = {}
    shapes: list[tuple[str, Shape]] = []
    twins = dict(repeated((pair.id, pair) for pair in found.pairs))
    for pair in found.pairs:
        problems = [*_files(found.path, pair), *_labels(pair)]
        try:
            if pair.latents is not None:
                shapes.append((pair.id, _shape(found.path, pair, pair.latents)))
        except DataError as error:
            problems.append(str(error))
        if twin := twins.get(pair.id):
            problems.append(f"prompt and videos are those of {twin}: the set holds them twice")
        if decode:
            problems += _videos(found.path, pair)
        reasons.setdefault(pair.id, []).extend(problems)
        tick()
    for name, count in Counter(pair.id for pair in found.pairs).items():
        if count > 1:
            reasons[name].append(f"{count} pairs have this id")
    usual = Counter(shape for _, shape in shapes).most_common(1)[0][0] if shapes else None
    for name, shape in shapes:
        if shape != usual:
            reasons[name].append(f"its latents are {_times(shape)}, those of most pairs {_times(usual or ())}")
    wrong = [f"{name}: {'; '.join(dict.fromkeys(lines))}" for name, lines in reasons.items() if lines]
    return Checked([*found.broken, *wrong], usual)


def repeated(named: Iterable[tuple[str, Pair]]) -> Iterator[tuple[str, str]]:
    """The name of every pair that is there under another one before, and that name.

    Several people may have judged one imported pair; what is made here is made once.
    """
    made: dict[tuple[str, str, str], str] = {}
    for name, pair in named:
        twin = made.setdefault((pair.prompt, pair.sha256.first, pair.sha256.second), name)
        if twin != name and pair.strategy != "imported":
            yield name, twin


def strays(found: PairSet) -> list[str]:
    """Files that belong to no pair. Hidden files, and pages and notes beside ``metadata.jsonl``, do not count."""
    named = _named(found.path)
    names = (path.relative_to(found.path) for path in sorted(found.path.rglob("*")) if path.is_file())
    shown = (name for name in names if not any(part.startswith(".") for part in name.parts))
    data = (name for name in shown if len(name.parts) > 1 or name.suffix.lower() in SUFFIXES | {".safetensors"})
    return [f"{name.as_posix()} belongs to no pair" for name in data if name.as_posix() not in named]


def shape_text(shape: Shape | None) -> str:
    """A shape for a message: ``8 x 3 x 4 x 4``."""
    return _times(shape) if shape else "none, training encodes the videos"


def _files(path: Path, pair: Pair) -> Iterator[str]:
    for name in pair.files:
        line = store.problem(path, pair, [name])
        if line:
            yield line.removeprefix(f"{pair.id}: ")


def _labels(pair: Pair) -> Iterator[str]:
    if (pair.labels is None) != (pair.label is None):
        yield "only one of labels (segments) and label (whole clip) is there"
    for name, values in (("scores", pair.scores), ("motion", pair.motion)):
        if values is None:
            continue
        if not len(values.first) == len(values.second) == len(pair.segments):
            counts = f"{len(values.first)} and {len(values.second)}"
            yield f"{name}: {counts} values for {len(pair.segments)} segments"
        if not all(math.isfinite(value) for value in (*values.first, *values.second)):
            yield f"{name} are not all finite"
    if pair.scores and not math.isfinite(pair.scores.first_clip + pair.scores.second_clip):
        yield "scores of the whole clips are not finite"


MORE = {"guided": ("source",), "local": ("mask",)}
"""What the latents of a pair hold beside both members, by strategy."""


def _shape(path: Path, pair: Pair, latents: str) -> Shape:
    """The one shape of a pair's latents. Raises `DataError` when they cannot be used."""
    if not (path / latents).is_file():
        raise DataError(f"{latents} is missing")
    tensors = store.read_latents(path / latents)
    wanted = ("first", "second", *MORE.get(pair.strategy, ()))
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise DataError(f"{latents} holds no latents named {' and '.join(missing)}")
    mask = tensors.get("mask")
    if mask is not None and mask.shape != tensors["first"].shape[1:]:
        raise DataError(f"{latents} holds a mask of another size than its latents")
    shapes = {tuple(tensor.shape) for name, tensor in tensors.items() if name != "mask"}
    if len(shapes) > 1 or len(tensors["first"].shape) != 4:
        raise DataError(f"{latents} holds {' and '.join(map(_times, sorted(shapes)))}, not one shape of four sizes")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise DataError(f"{latents} holds values that are not finite")
    return shapes.pop()


def _videos(path: Path, pair: Pair) -> Iterator[str]:
    sizes = []
    for member in pair.videos:
        name = member.file_name
        if not (path / name).is_file():
            continue
        try:
            video = read_video(path / name).frames
        except DataError as error:
            yield str(error)
            continue
        sizes.append(tuple(video.shape[2:]))
        if len(video) != member.frames:
            yield f"{name} has {len(video)} frames, not {member.frames}"
    if len(set(sizes)) > 1 and pair.strategy != "imported":
        yield f"its videos are {_times(sizes[0])} and {_times(sizes[1])} pixels"


def _named(path: Path) -> set[str]:
    """All files that a line of the set names, also a line that is wrong in another way."""
    found = set()
    for line in plain.lines((path / "metadata.jsonl").read_text(encoding="utf-8")):
        try:
            row = json.loads(line)
            found |= {str(row[key]) for key in ("first_file_name", "second_file_name", "latents")}
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def _times(shape: Shape) -> str:
    return " x ".join(map(str, shape))
