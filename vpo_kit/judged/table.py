"""Tables of other people: csv, json lines, json lists and parquet as rows of text."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vpo_kit import plain
from vpo_kit.errors import DataError, first_line
from vpo_kit.video import SUFFIXES as VIDEOS

Row = dict[str, str]
NAMES = ("ratings.csv", "metadata.csv", "metadata.jsonl", "genai_video.json", "pair.json")
"""What is looked for in a folder, beside its only table."""
SUFFIXES = (".csv", ".jsonl", ".json", ".parquet", ".tsv")
HEADERS = {2: ("file", "mos"), 3: ("file", "prompt", "mos"), 4: ("file", "x", "y", "mos")}
"""The columns of lists of scores that come without a line of names, by their number (LSVQ's, KoNViD's, T2VQA-DB's)."""
SEPARATORS = "|\t;,"


def find(source: Path) -> Path:
    """The table of a folder, or the file itself. Raises `DataError`."""
    if source.is_file():
        return source
    if not source.is_dir():
        raise DataError(f"there is no {source}")
    tables = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    named = [path for path in tables if path.name in NAMES] or tables
    if len(named) != 1:
        found = ", ".join(path.name for path in named) or "none"
        raise DataError(f"{source}: which table? ({found}): give the file itself")
    return named[0]


def read(path: Path, separator: str | None = None) -> list[Row]:
    """All rows, every value as text, nothing as empty text; what separates columns is detected unless it is given.

    Raises `DataError`.
    """
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            rows: Sequence[Any] = _parquet(path)
        elif kind == ".jsonl":
            rows = [row for _, row in plain.json_lines(path)]
        elif kind == ".json":
            rows = _listed(json.loads(plain.read(path)))
            for number, row in enumerate(rows, 1):
                plain.check_characters(row, f"{path}, row {number},")
        else:
            rows = _lines(path, separator)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as {kind[1:] or 'csv'}: {first_line(error)}") from error
    if not rows:
        raise DataError(f"{path} has no rows")
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} is no list of rows")
    return [{str(key): _text(value) for key, value in row.items() if key is not None} for row in rows]


def _lines(path: Path, separator: str | None) -> list[Any]:
    """The rows of a text table. Its first line names the columns, or is a row: then its first cell is a video."""
    text = plain.read(path)
    first = next(iter(plain.lines(text)), "")
    signs = [separator] if separator else [sign for sign in SEPARATORS if sign in first]
    bare = {sign: len(cells) for sign in signs if _is_video((cells := _cells(first, sign))[0])}
    # a prompt may hold more commas than the line has columns
    sign = next((sign for sign in bare if bare[sign] in HEADERS), max(signs, key=first.count, default=","))
    names: Sequence[str] = ()
    if sign in bare:
        if bare[sign] not in HEADERS:
            raise ValueError(f"its first line has no names and {bare[sign]} columns: write names above them")
        names = HEADERS[bare[sign]]
    columns, rows = plain.csv_of(text, path, names, sign)
    return [dict(zip(columns, row, strict=True)) for _, row in rows]


def _cells(line: str, sign: str) -> list[str]:
    return next(csv.reader([line], delimiter=sign), [""])


def _is_video(name: str) -> bool:
    return Path(name.strip()).suffix.lower() in VIDEOS


def _listed(found: Any) -> list[Any]:
    """A list as it is; of a mapping from ids to rows the rows, each with its id."""
    if isinstance(found, dict) and all(isinstance(value, dict) for value in found.values()):
        return [{"id": key, **value} for key, value in found.items()]
    return found if isinstance(found, list) else [found]


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, dict) and set(value) == {"bytes", "path"}:  # a video or an image in a file of `datasets`
        value = value["path"] or ""
    return (
        value.strip()
        if isinstance(value, str)
        else (json.dumps(value, default=str) if isinstance(value, list | dict) else str(value))
    )


def _parquet(path: Path) -> list[Any]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{path}: parquet needs pyarrow: pip install 'vpo-kit[parquet]'") from error
    rows: list[Any] = parquet.read_table(path).to_pylist()
    return rows
