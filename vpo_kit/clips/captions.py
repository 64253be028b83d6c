"""The clips that a folder names, with what it says of each: any `videofolder`, or videos with a text beside each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vpo_kit import plain
from vpo_kit.errors import DataError
from vpo_kit.files import inside
from vpo_kit.video import SUFFIXES

TEXTS = ("text", "caption", "prompt")
"""What a listing may call its captions; the first that is there counts."""

Caption = str | DataError | None
"""What a folder says of a clip, why that cannot be read, or nothing."""


def captions(folder: Path) -> Iterator[tuple[str, Caption]]:
    """File names relative to the folder with their captions, in a fixed order.

    Raises `DataError` where a listing is damaged: it is the whole folder's.
    """
    listing, rows = listed(folder)
    if listing is None:
        for path in files(folder):
            yield path.relative_to(folder).as_posix(), _beside(folder, path.with_suffix(".txt"))
    for number, row in rows:
        caption = next((row[key] for key in TEXTS if key in row), None)
        if not isinstance(caption, str | None):
            raise DataError(f"{listing}, line {number}: the caption must be a text, not {caption!r:.40}")
        yield str(row["file_name"]), caption


def is_pair_set(folder: Path) -> bool:
    """Whether the folder's listing is that of a pair set, which names two videos a line and no captions of files."""
    listing = folder / "metadata.jsonl"
    if not listing.is_file():
        return False
    _, row = next(plain.json_lines(listing), (0, None))
    return isinstance(row, dict) and "first_file_name" in row and "file_name" not in row


Rows = list[tuple[int, dict[str, object]]]


def listed(folder: Path) -> tuple[Path | None, Rows]:
    """The folder's listing, if it has one, and its rows, each with its line and a ``file_name``."""
    lines, table = folder / "metadata.jsonl", folder / "metadata.csv"
    if lines.is_file():
        return lines, [(number, _row(lines, number, row)) for number, row in plain.json_lines(lines)]
    if not table.is_file():
        return None, []
    names, rows = plain.csv_rows(table)
    if "file_name" not in names or not set(TEXTS) & set(names):
        raise DataError(f"{table}: the first line must name the columns file_name and text, not {', '.join(names)}")
    return table, [(number, dict(zip(names, row, strict=True))) for number, row in rows]


def _row(path: Path, number: int, row: object) -> dict[str, object]:
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise DataError(f"{path}, line {number}: each line is a JSON object with file_name and text")
    return row


def files(folder: Path) -> list[Path]:
    """All videos below a folder by their names, in order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _beside(folder: Path, text: Path) -> Caption:
    try:
        if not text.is_file():
            return None
        return plain.read(text) if inside(folder, text) else DataError(f"{text.name} lies outside {folder}")
    except DataError as error:
        return error
