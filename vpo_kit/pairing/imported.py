"""Other people's sets as sets of ours: videos linked by content, every verdict kept, nothing encoded.

A set of verdicts becomes a pair set, a set of ratings a rated one, which is a videofolder with one row a clip; pairs of
one prompt are formed from it by importing it again with `least`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from vpo_kit import files
from vpo_kit.clips import IndexedFile, look_through, overall_of
from vpo_kit.clips.index import Progress
from vpo_kit.errors import ConfigError, DataError, OutputError
from vpo_kit.judged.sets import JudgedClip, JudgedPair, JudgedSet, pairs_of_ratings
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Hashes, Pair
from vpo_kit.pairing.store import PairSet
from vpo_kit.video import Extent

PEOPLE = "people"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What was written: `count` pairs, or rated clips, of `clips` clips, `unequal` pairs among them."""

    count: int
    clips: int
    rated: bool
    left_out: Sequence[str]
    passed_over: Sequence[str]
    unequal: int
    dimensions: Sequence[str]
    label: str | None
    """The dimension that became the label, where one did."""


@dataclass(frozen=True)
class _Seen:
    """A clip that can be decoded."""

    extent: Extent
    sha256: str
    file_name: str
    """The name of its file in the set, by content: one video in several pairs is one file."""


def write(
    found: JudgedSet,
    output: Path,
    facts: Mapping[str, Any],
    least: float | None = None,
    progress: Progress = lambda done, total: None,
) -> Imported:
    """Look through the clips of `found` without decoding them, and write the set, whole or not at all.

    With `least`, ratings become pairs of one prompt: a tie where they differ by so much or less. Raises `ConfigError`
    for `least` without ratings, `DataError` when nothing can be used, `OutputError` when `output` is taken.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output} exists: give another --output")
    if least is not None and not found.rated:
        raise ConfigError(f"--least-difference: {found.name} holds verdicts on pairs, and no ratings")
    seen = _look(found.clips, progress)
    readable = {i: one for i, one in enumerate(seen) if isinstance(one, _Seen)}
    broken = {i: one for i, one in enumerate(seen) if isinstance(one, str)}
    rated = found.rated and least is None
    if rated:
        readable = _apart(readable)
        used = [(i, found.clips[i]) for i in readable]
        lines = [f"row {found.clips[i].row}: {why}" for i, why in broken.items()]
        kept: list[JudgedPair] = []
    else:
        pairs = found.pairs if least is None else pairs_of_ratings(found.clips, least)
        kept = [pair for pair in pairs if pair.first in readable and pair.second in readable]
        lines = _broken_rows(found, pairs, broken)
        used = [(i, found.clips[i]) for i in dict.fromkeys(i for pair in kept for i in (pair.first, pair.second))]
    left_out = [*found.left_out, *lines]
    if not used:
        raise DataError(
            f"{found.name}: nothing can be used: {left_out[0] if left_out else 'no two clips share a prompt'}"
        )
    dimensions = found.dimensions
    about = {**facts, "dimensions": dimensions}
    skipped = [*found.passed_over, *left_out]
    label = None if rated else overall_of(dimensions)
    counted = any(pair.shares for pair in kept)
    rows = [_pair(number, pair, found, readable, dimensions, label, counted) for number, pair in enumerate(kept)]
    with files.beside(output) as partial:
        for i, clip in used:
            files.link(clip.path, partial / readable[i].file_name)
        if rated:
            _write_rated(partial, about, [(clip, readable[i]) for i, clip in used], skipped)
        else:
            labels = {"labels": {"labeller": PEOPLE, "dimension": label}} if label else {}
            store.write(partial, {**about, **labels, "pairs": len(rows), "skipped": skipped}, rows)
    unequal = sum(pair.second_fps is not None for pair in rows)
    return Imported(
        count=len(kept) or len(used),
        clips=len(used),
        rated=rated,
        left_out=left_out,
        passed_over=found.passed_over,
        unequal=unequal,
        dimensions=dimensions,
        label=label,
    )


def relabelled(found: PairSet, dimension: str | None) -> PairSet:
    """The set with people's verdicts in one dimension as its labels; as it is without a dimension.

    Raises `ConfigError` for a set without verdicts by dimension and for an unknown dimension, `DataError` where the
    set has several dimensions, none of them overall, and none is asked for.
    """
    known = list(dict.fromkeys(name for pair in found.pairs for name in pair.judged or ()))
    if dimension is None:
        if known and all(pair.label is None for pair in found.pairs):
            raise DataError(f"{found.path} is judged in {', '.join(known)}, and not overall: give data.dimension")
        return found
    if dimension not in known:
        has = f"it has {', '.join(known)}" if known else "it was not imported with people's verdicts"
        raise ConfigError(f"data.dimension: {found.path} has no dimension {dimension!r} ({has})")
    return replace(found, pairs=[_relabelled(pair, dimension) for pair in found.pairs])


def weight(pair: Pair, dimension: str | None) -> float:
    """How far a pair's votes are from a draw, 0 to 1; 1 where they were not counted."""
    shares = pair.shares or {}
    name = dimension or overall_of(list(pair.judged or ()))
    share = shares.get(name) if name else None
    return 1.0 if share is None else abs(2 * share - 1)


def _relabelled(pair: Pair, dimension: str) -> Pair:
    verdict = (pair.judged or {}).get(dimension)
    labels = None if verdict is None else [verdict] * len(pair.segments)
    labeller = None if verdict is None else PEOPLE
    return pair.model_copy(update={"label": verdict, "labels": labels, "labeller": labeller})


def _look(clips: Sequence[JudgedClip], progress: Progress) -> list[_Seen | str]:
    """Every clip's extent and content, or why it cannot be used."""
    folder = Path(os.path.commonpath([clip.path.parent for clip in clips]))
    names = [clip.path.relative_to(folder).as_posix() for clip in clips]
    known = look_through(folder, names, progress)
    return [_seen(name, clip, known.get(name)) for name, clip in zip(names, clips, strict=True)]


def _seen(name: str, clip: JudgedClip, known: IndexedFile | None) -> _Seen | str:
    if known is None:
        return f"{name} cannot be opened"
    if isinstance(known.found, str):
        return f"{name} {known.found}"
    return _Seen(known.found, known.sha256, f"videos/{known.sha256[:20]}{clip.path.suffix.lower()}")


def _apart(seen: Mapping[int, _Seen]) -> dict[int, _Seen]:
    """The clips of a rated set, which has a row for each: one video under several prompts has several names."""
    count: Counter[str] = Counter()
    found = {}
    for i, one in seen.items():
        path, number = Path(one.file_name), count[one.file_name]
        count[one.file_name] += 1
        found[i] = replace(one, file_name=f"videos/{path.stem}-{number}{path.suffix}") if number else one
    return found


def _broken_rows(found: JudgedSet, pairs: Sequence[JudgedPair], broken: Mapping[int, str]) -> list[str]:
    """A line for each row that is lost with an unreadable clip; of pairs that were formed, for each clip."""
    if any(not pair.row for pair in pairs):
        return [f"row {found.clips[i].row}: {why}" for i, why in broken.items()]
    return [
        f"row {pair.row}: {next(broken[i] for i in (pair.first, pair.second) if i in broken)}"
        for pair in pairs
        if pair.first in broken or pair.second in broken
    ]


def _pair(
    number: int,
    pair: JudgedPair,
    found: JudgedSet,
    seen: Mapping[int, _Seen],
    dimensions: Sequence[str],
    label: str | None,
    counted: bool,
) -> Pair:
    """`counted`: whether votes were, of any pair of the set."""
    one, other = found.clips[pair.first], found.clips[pair.second]
    first, second = seen[pair.first], seen[pair.second]
    differs = (first.extent.frames, first.extent.fps) != (second.extent.frames, second.extent.fps)
    verdict = pair.verdicts.get(label) if label else None
    given = _counts(first.extent)
    return Pair.model_validate(
        {
            "id": f"{number:06d}",
            "prompt": one.prompt,
            "strategy": "imported",
            "fps": given[1],
            "frames": given[0],
            "first_file_name": first.file_name,
            "second_file_name": second.file_name,
            "second_frames": _counts(second.extent)[0] if differs else None,
            "second_fps": _counts(second.extent)[1] if differs else None,
            "segments": [(0, given[0])],
            "label": verdict,
            "labels": None if verdict is None else [verdict],
            "labeller": None if verdict is None else PEOPLE,
            # every row has all names: readers of JSON lines want columns of one kind
            "judged": {name: pair.verdicts.get(name) for name in dimensions},
            "shares": {name: pair.shares.get(name) for name in dimensions} if counted else None,
            "models": (one.model, other.model) if one.model or other.model else None,
            "row": pair.row or None,
            "sha256": Hashes(first=first.sha256, second=second.sha256),
        }
    )


def _counts(extent: Extent) -> tuple[int, float]:
    """Frames and rate as the reader gives a whole file out."""
    return (extent.frames if extent.even else max(1, round(extent.duration * extent.fps))), extent.fps


def _write_rated(
    folder: Path, facts: Mapping[str, Any], clips: Sequence[tuple[JudgedClip, _Seen]], skipped: Sequence[str]
) -> None:
    rows = [
        {
            "file_name": seen.file_name,
            "text": clip.prompt,
            "model": clip.model or None,
            "scores": {name: clip.scores.get(name) for name in facts["dimensions"]},
            "row": clip.row,
            "sha256": seen.sha256,
        }
        for clip, seen in clips
    ]
    about = {**facts, "kind": "rated", "clips": len(rows), "skipped": list(skipped)}
    files.write(folder / "dataset.yaml", yaml.safe_dump(about, sort_keys=False, allow_unicode=True))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files.write(folder / "metadata.jsonl", lines)
