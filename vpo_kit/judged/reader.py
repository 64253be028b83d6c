"""A foreign folder or table as a `JudgedSet`: every row is used, or named with the reason why it is not."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence, Set
from os.path import normpath
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vpo_kit import files
from vpo_kit.errors import DataError
from vpo_kit.judged import shapes, table
from vpo_kit.judged.layouts import Layout, PairLayout, RatingLayout, Reading
from vpo_kit.judged.sets import JudgedClip, JudgedPair, JudgedSet, pairs_of_ratings
from vpo_kit.judged.table import Row
from vpo_kit.video import SUFFIXES

PLACES = ("", "videos", "Videos")
"""Folders beside a table in which its files may lie."""
KINDS = (".mp4", *sorted(SUFFIXES - {".mp4"}))


def read(source: Path, reading: Reading | None = None) -> JudgedSet:
    """A folder or table. Raises `DataError` for what no layout fits."""
    reading = reading or Reading()
    path = table.find(source)
    rows = table.read(path, reading.separator)
    columns = set().union(*rows)
    candidates = reading.candidates
    fitting = [known for known in candidates.values() if known.needed <= columns]
    if not fitting:
        one = next(iter(candidates.items())) if len(candidates) == 1 else None
        wanted = f" ({one[0]} needs {', '.join(sorted(one[1].needed))})" if one else ""
        raise DataError(f"{path}: no known layout has these columns: {', '.join(sorted(columns))}{wanted}")
    found = _read(path, rows, fitting[0])
    if not found.pairs and not found.rated:
        why = f": {found.left_out[0]}" if found.left_out else ""
        raise DataError(f"{path}: none of {len(rows)} rows can be used{why}")
    return found


def _read(path: Path, rows: Sequence[Row], layout: Layout) -> JudgedSet:
    shaped = layout.shape(rows) if layout.shape else rows
    name = path.parent.resolve().name if path.name in table.NAMES else path.stem
    if isinstance(layout, PairLayout):
        return _pairs(name, path, shaped, layout)
    return _ratings(name, path, shaped, layout)


def _pairs(name: str, path: Path, rows: Sequence[Row], layout: PairLayout) -> JudgedSet:
    clips: dict[tuple[Path, str], int] = {}
    known: list[JudgedClip] = []
    seen: dict[str, int] = {}
    pairs, left_out = [], []
    for number, row in enumerate(rows, 1):
        try:
            if layout.discard and row.get(layout.discard, "").lower() in ("true", "1", "yes"):
                raise DataError("the set itself discards it")
            verdicts, shares = _verdicts(row, layout), _shares(row)
            if (first := seen.setdefault(repr(sorted(row.items())), number)) != number:
                raise DataError(f"the same as row {first}")
            paths = [_file(path, row.get(column, "")) for column in layout.files]
            if paths[0] == paths[1]:
                raise DataError(f"both videos are {paths[0].name}")
            models = [row.get(column, "") for column in layout.models or ("", "")]
            places = []
            for file, model in zip(paths, models, strict=True):
                clip = JudgedClip(path=file, prompt=row.get(layout.prompt, ""), model=model, row=number)
                if (clip.path, clip.prompt) not in clips:
                    clips[clip.path, clip.prompt] = len(known)
                    known.append(clip)
                places.append(clips[clip.path, clip.prompt])
            pairs.append(JudgedPair(first=places[0], second=places[1], verdicts=verdicts, shares=shares, row=number))
        except DataError as error:
            left_out.append(f"row {number}: {error}")
    return JudgedSet(name=name, clips=known, pairs=pairs, left_out=left_out)


def _verdicts(row: Row, layout: PairLayout) -> dict[str, int]:
    given: dict[str, str] = {}
    for column in layout.verdicts:
        given |= shapes.dimensions(row.get(column, ""), row.get(layout.aspect, "") or column)
    meaning = {word.lower(): value for word, value in layout.words.items()}
    known = {name: meaning.get(word.strip().lower()) for name, word in given.items()}
    # a set's own word may be one that says nothing elsewhere
    for name, word in given.items():
        if known[name] is None and not shapes.is_nothing(word):
            raise DataError(f"{name} is {word!r}, which is none of {', '.join(layout.words)}")
    verdicts = {name: value for name, value in known.items() if value is not None}
    if not verdicts:
        raise DataError(f"no verdict in {' or '.join(layout.verdicts)}")
    return verdicts


def _shares(row: Row) -> dict[str, float]:
    given = shapes.mapping(row.get(shapes.SHARES, "")) or {}
    known = {name: value for name, value in given.items() if value is not None}
    for name, value in known.items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise DataError(f"the share of votes in {name} is {value!r}, and no number from 0 to 1")
    return {name: float(value) for name, value in known.items()}


def _ratings(name: str, path: Path, rows: Sequence[Row], layout: RatingLayout) -> JudgedSet:
    taken = {layout.file, layout.prompt, layout.model, *layout.no_scores}
    names, passed_over = (list(layout.scores), []) if layout.scores else _dimensions(rows, taken)
    if not names:
        why = passed_over[0] if passed_over else f"no column but {', '.join(sorted(taken))} holds numbers"
        raise DataError(f"{path}: {why}")
    clips: dict[tuple[Path, str], JudgedClip] = {}
    left_out = []
    for number, row in enumerate(rows, 1):
        try:
            given: dict[str, str] = {}
            for column in names:
                given |= shapes.dimensions(row.get(column, ""), column)
            known = {dimension: value for dimension, value in given.items() if not shapes.is_nothing(value)}
            scores = {dimension: _number(dimension, value) for dimension, value in known.items()}
            if not scores:
                raise DataError(f"no score in {' or '.join(names)}")
            file, prompt = _file(path, row.get(layout.file, "")), row.get(layout.prompt, "")
            if (file, prompt) in clips:
                raise DataError(f"the same clip as row {clips[file, prompt].row}: give it one row, with its mean score")
            clips[file, prompt] = JudgedClip(
                path=file, prompt=prompt, model=row.get(layout.model, ""), scores=scores, row=number
            )
        except DataError as error:
            left_out.append(f"row {number}: {error}")
    rated = list(clips.values())
    return JudgedSet(name=name, clips=rated, pairs=pairs_of_ratings(rated), left_out=left_out, passed_over=passed_over)


def _dimensions(rows: Sequence[Row], taken: Set[str]) -> tuple[list[str], list[str]]:
    """The columns most of whose values are numbers, and a line on each other one that has numbers too: one odd cell
    costs its row, which is named, and not what all other rows say.
    """
    names, passed_over = [], []
    for column in dict.fromkeys(column for row in rows for column in row if column not in taken):
        values = [row[column] for row in rows if not shapes.is_nothing(row.get(column, ""))]
        odd = [value for value in values if shapes.number(value) is None]
        if 2 * len(odd) < len(values):
            names.append(column)
        elif len(odd) < len(values):
            count = len(values) - len(odd)
            passed_over.append(
                f"column {column} is no dimension: {count} of its {len(values)} values are numbers, and "
                f"{odd[0][:60]!r} is none"
            )
    return names, passed_over


def _number(name: str, value: str) -> float:
    found = shapes.number(value)
    if found is None:
        raise DataError(f"{name} is {value!r} and no number")
    return found


def _file(table_path: Path, name: str) -> Path:
    """A file inside the table's folder; of an address its last part. Raises `DataError`."""
    if not name:
        raise DataError("no file is named")
    try:
        address = urlsplit(name)
    except ValueError as error:  # a bracket that is not closed
        raise DataError(f"{name[:60]!r} cannot be a file") from error
    name = unquote(address.path).rpartition("/")[2] if address.scheme in ("http", "https") else name
    folder = table_path.parent.resolve()
    for place in PLACES:
        for given in _spellings(name):
            try:
                # by its own name: in a snapshot of the Hub's cache it is a link to a blob, whose name says no kind
                path = Path(normpath(folder / place / given))
                if not files.inside(folder, path):
                    raise DataError(f"{name[:200]} lies outside the set's folder")
                if path.is_file():
                    return path
            except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
                raise DataError(f"{name[:60]!r} cannot be a file") from error
    raise DataError(f"{name[:200]} is missing")


def _spellings(name: str) -> list[str]:
    """What a file may be called: with the signs of other systems between folders, accents in one character or two, and
    a suffix that the table leaves out.
    """
    plain = [name, name.replace("\\", "/")]
    forms = [*plain, *(unicodedata.normalize(form, own) for own in plain for form in ("NFC", "NFD"))]
    return list(dict.fromkeys([*forms, *(f"{own}{suffix}" for own in forms for suffix in KINDS)]))
