"""The layouts that foreign sets come in: which columns hold what, and the set's own words for a verdict.

A layout is a line of `LAYOUTS`: it is known by its columns, or asked for by name. Sources: the sets' own repositories
(VideoAlign, arXiv 2501.13918; VisionReward, arXiv 2412.21059; MJ-Bench-Video, arXiv 2502.01719; FETV, arXiv
2311.01813; T2VQA-DB, arXiv 2403.11956).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vpo_kit.errors import ConfigError, DataError
from vpo_kit.judged import table
from vpo_kit.judged.sets import JudgedClip, JudgedPair, JudgedSet, pairs_of_ratings
from vpo_kit.judged.table import Row


@dataclass(frozen=True)
class PairLayout:
    """Two files and a verdict a row; `verdicts` are columns, or are what is left when the rest has been taken."""

    files: tuple[str, str]
    verdicts: Sequence[str]
    words: tuple[str, str, str]
    """For the first, the second, and a tie."""
    prompt: str = "prompt"
    models: tuple[str, str] | None = None
    discard: str = ""
    """A column whose true rows are not meant to be used."""


@dataclass(frozen=True)
class RatingLayout:
    """One clip a row; every other column that holds numbers alone is a dimension, or those of `scores`."""

    file: str
    prompt: str = "prompt"
    model: str = "model"
    scores: Sequence[str] = ()


LAYOUTS: dict[str, PairLayout | RatingLayout] = {
    "videogen-rewardbench": PairLayout(
        ("path_A", "path_B"), ("VQ", "MQ", "TA", "Overall", "ALL"), ("A", "B", "same"), models=("A_model", "B_model")
    ),
    "visionreward": PairLayout(("video1_path", "video2_path"), ("standard_answer",), ("video1", "video2", "tie")),
    "mj-bench-video": PairLayout(
        ("video_0_path", "video_1_path"), ("overall_preference",), ("Video 1 better", "Video 2 better", "Same"),
        prompt="caption", discard="discard",
    ),
    "pairs": PairLayout(
        ("first", "second"), ("verdict",), ("first", "second", "tie"), models=("first_model", "second_model")
    ),
    "fetv": RatingLayout("file_name"),
    "mos": RatingLayout("file", scores=("mos",)),
}  # fmt: skip
"""`pairs` and `mos` are the plain ones: whoever has a set in columns of other names renames them."""


def read(source: Path, layout: str | None = None) -> JudgedSet:
    """A folder or table. Raises `DataError` for what no layout fits, `ConfigError` for an unknown layout."""
    path = table.find(source)
    rows = table.read(path)
    columns = set().union(*rows)
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r} (known: {', '.join(LAYOUTS)})")
    fitting = [name for name, known in LAYOUTS.items() if _needed(known) <= columns and (layout in (None, name))]
    if not fitting:
        wanted = "" if layout is None else f" ({layout} needs {', '.join(sorted(_needed(LAYOUTS[layout])))})"
        raise DataError(f"{path}: no known layout has these columns: {', '.join(sorted(columns))}{wanted}")
    chosen = LAYOUTS[fitting[0]]
    found = _pairs(path, rows, chosen) if isinstance(chosen, PairLayout) else _ratings(path, rows, chosen)
    if not found.pairs and not found.rated:
        why = f": {found.left_out[0]}" if found.left_out else ""
        raise DataError(f"{path}: none of {len(rows)} rows can be used{why}")
    return found


def _needed(layout: PairLayout | RatingLayout) -> set[str]:
    files = set(layout.files) if isinstance(layout, PairLayout) else {layout.file, *layout.scores}
    return files | {layout.prompt}


def _pairs(path: Path, rows: Sequence[Row], layout: PairLayout) -> JudgedSet:
    words = dict(zip((word.lower() for word in layout.words), (1, -1, 0), strict=True))
    clips: dict[tuple[Path, str], int] = {}
    known: list[JudgedClip] = []
    seen: dict[str, int] = {}
    pairs, left_out = [], []
    for number, row in enumerate(rows, 1):
        try:
            if layout.discard and row.get(layout.discard, "").lower() in ("true", "1", "yes"):
                raise DataError("the set itself discards it")
            verdicts = _verdicts(row, layout, words)
            if (first := seen.setdefault(repr(sorted(row.items())), number)) != number:
                raise DataError(f"the same as row {first}")
            models = [row.get(column, "") for column in layout.models or ("", "")]
            places = []
            for column, model in zip(layout.files, models, strict=True):
                clip = JudgedClip(_file(path, row[column]), row.get(layout.prompt, ""), model)
                key = (clip.path, clip.prompt)
                if key not in clips:
                    clips[key] = len(known)
                    known.append(clip)
                places.append(clips[key])
            pairs.append(JudgedPair(places[0], places[1], verdicts))
        except DataError as error:
            left_out.append(f"row {number}: {error}")
    return JudgedSet(path.parent.name if path.name in table.NAMES else path.stem, known, pairs, left_out)


def _verdicts(row: Row, layout: PairLayout, words: Mapping[str, int]) -> dict[str, int]:
    given = {name: row[name] for name in layout.verdicts if row.get(name)}
    if not given:
        raise DataError(f"no verdict in {' or '.join(layout.verdicts)}")
    for name, word in given.items():
        if word.lower() not in words:
            raise DataError(f"{name} is {word!r}, which is none of {', '.join(layout.words)}")
    return {name: words[word.lower()] for name, word in given.items()}


def _ratings(path: Path, rows: Sequence[Row], layout: RatingLayout) -> JudgedSet:
    taken = {layout.file, layout.prompt, layout.model}
    names = list(layout.scores) or [name for name in rows[0] if name not in taken and _is_number(rows, name)]
    if not names:
        raise DataError(f"{path}: no column but {', '.join(sorted(taken))} holds numbers alone")
    clips, left_out = [], []
    for number, row in enumerate(rows, 1):
        try:
            scores = {name: _number(name, row[name]) for name in names if row.get(name)}
            if not scores:
                raise DataError(f"no score in {' or '.join(names)}")
            model = row.get(layout.model, "")
            clips.append(JudgedClip(_file(path, row[layout.file]), row.get(layout.prompt, ""), model, scores))
        except DataError as error:
            left_out.append(f"row {number}: {error}")
    name = path.parent.name if path.name in table.NAMES else path.stem
    return JudgedSet(name, clips, pairs_of_ratings(clips), left_out)


def _is_number(rows: Sequence[Row], name: str) -> bool:
    values = [row.get(name, "") for row in rows]
    return any(values) and all(not value or _parsed(value) is not None for value in values)


def _parsed(value: str) -> float | None:
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _number(name: str, value: str) -> float:
    found = _parsed(value)
    if found is None:
        raise DataError(f"{name} is {value!r} and no number")
    return found


def _file(table_path: Path, name: str) -> Path:
    """A file inside the table's folder, as the layouts have it. Raises `DataError`."""
    if not name:
        raise DataError("no file is named")
    folder = table_path.parent.resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise DataError(f"{name[:200]} lies outside the set's folder")
    if not path.is_file():
        raise DataError(f"{name[:200]} is missing")
    return path
