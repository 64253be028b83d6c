"""Which clips a folder names, and what it says of each: any `videofolder`, or videos with a text file beside each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vpo_kit import plain
from vpo_kit.errors import DataError
from vpo_kit.video import SUFFIXES

TEXTS = ("text", "caption", "prompt")
"""What a listing may call its captions; the first that is there counts."""

Caption = str | DataError | None
"""What a folder says of a clip, why that cannot be read, or nothing."""


def captions(folder: Path) -> Iterator[tuple[str, Caption]]:
    """File names relative to the folder with their captions, in a fixed order.

    Raises `DataError` where a listing is damaged: it is the whole folder's.
    """
    for listing, parse in ((folder / "metadata.jsonl", _json_lines), (folder / "metadata.csv", _csv_rows)):
        if listing.is_file():
            yield from parse(listing)
            return
    for path in files(folder):
        yield path.relative_to(folder).as_posix(), _beside(path.with_suffix(".txt"))


VERDICTS = {"good": 1.0, "up": 1.0, "true": 1.0, "bad": 0.0, "down": 0.0, "false": 0.0}
"""What a verdict may be called, with the rating that it is read as."""


def ratings(folder: Path) -> dict[str, float]:
    """What people said of each file: its ``rating`` (a number) or its ``verdict`` (good or bad, up or down, true or
    false, read as 1 and 0) in ``metadata.jsonl`` or ``metadata.csv``; files that have neither are not there.

    Raises `DataError` for a word that is neither.
    """
    found: dict[str, float] = {}
    for name, row in _listed(folder):
        value = next((row[key] for key in ("rating", "verdict") if row.get(key) not in (None, "")), None)
        if value is None:
            continue
        word = str(value).strip().lower()
        try:
            found[name] = VERDICTS[word] if word in VERDICTS else float(word)
        except ValueError as error:
            raise DataError(f"{folder}: {name} is rated {value!r}: give a number, or {', '.join(VERDICTS)}") from error
    return found


def _listed(folder: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """File names with their whole rows."""
    lines, table = folder / "metadata.jsonl", folder / "metadata.csv"
    if lines.is_file():
        for (name, _), line in zip(_json_lines(lines), _read(lines).splitlines(), strict=True):
            yield name, json.loads(line)
    elif table.is_file():
        rows = csv.DictReader(io.StringIO(_read(table)))
        yield from ((name, dict(row)) for (name, _), row in zip(_csv_rows(table), rows, strict=True))


def files(folder: Path) -> list[Path]:
    """All videos below a folder by their names, in order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _beside(text: Path) -> Caption:
    try:
        return plain.read(text) if text.is_file() else None
    except DataError as error:
        return error


def _json_lines(path: Path) -> Iterator[tuple[str, Caption]]:
    for number, row in plain.json_lines(path):
        name = row.get("file_name") if isinstance(row, dict) else None
        caption = next((row[key] for key in TEXTS if key in row), None) if isinstance(row, dict) else None
        if not isinstance(name, str) or not isinstance(caption, str | None):
            raise DataError(f"{path}, line {number}: each line is a JSON object with file_name and text")
        yield name, caption


def _csv_rows(path: Path) -> Iterator[tuple[str, Caption]]:
    names, rows = plain.csv_rows(path)
    column = next((names.index(key) for key in TEXTS if key in names), None)
    if column is None or "file_name" not in names:
        raise DataError(f"{path}: the first line must name the columns file_name and text, not {', '.join(names)}")
    file = names.index("file_name")
    yield from ((row[file], row[column]) for _, row in rows)
