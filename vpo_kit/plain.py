"""Text files as people and programs write them, read strictly: what is not plain is refused with its line.

Lines end at line feeds alone (and at the carriage returns of other systems): the separators of Unicode that
`str.splitlines` knows, the form feed among them, are characters of a prompt. No torch here.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vpo_kit.errors import DataError

MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def read(path: Path) -> str:
    """The text of a UTF-8 file, without its byte order mark. Raises `DataError` with the line that is wrong."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if kind := MARKS.get(content[:2]):
        raise DataError(f"{path} is {kind} text: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}, is not UTF-8 text: save it as UTF-8") from error
    if "\0" in text:
        raise DataError(
            f"{path}, line {text.count(chr(10), 0, text.index(chr(0))) + 1}, holds a zero byte: it is not a text file"
        )
    return text


def lines(text: str) -> list[str]:
    """The lines of a text, without their ends."""
    found = re.split(r"\r\n|\n|\r", text)
    return found[:-1] if found[-1] == "" else found


def one_line(text: str) -> str:
    """The words of a text with a single space between them: what a caption or prompt is known by."""
    return " ".join(text.split())


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The value of each line that is not empty, with the line's number from 1 on. Raises `DataError`."""
    for number, line in enumerate(lines(read(path)), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            check_characters(value, f"{path}, line {number},")
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}, is not JSON: {str(error) or 'too deep'}") from error
        yield number, value


def check_characters(value: Any, where: str) -> None:
    """Raises `DataError` for half of a surrogate pair in what was read of JSON, where it is valid, and no text."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where} holds half of a surrogate pair, which is no character") from error


def csv_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The columns and rows of a file, as `csv_of` gives them."""
    return csv_of(read(path), path)


def csv_of(
    text: str, path: Path, names: Sequence[str] = (), separator: str = ","
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns, which stand in the first line unless they are given, and each row with the number of
    its last line; `text` is that of the file `path`.

    Raises `DataError` for a quote that does not end and for a row that has more or fewer fields than there are columns:
    a comma inside a caption without quotes would cut it off without a word.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator, skipinitialspace=True)
    rows: list[tuple[int, list[str]]] = []
    columns, begun = list(names), 1
    try:
        for row in reader:
            if not columns:
                columns = row
            elif row and len(row) != len(columns):
                raise DataError(
                    f"{path}, line {begun}, has {len(row)} fields, the first line names {len(columns)} columns: a text "
                    f"with a {separator!r} goes between double quotes"
                )
            elif row:
                rows.append((reader.line_num, row))
            begun = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {begun}: {error}; a quote inside a quoted text is written twice") from error
    return columns, rows


class _Lines(list[str]):
    """What `csv` writes, by lines. It quotes cells with a sign of its own line end: that has both signs, ours one."""

    def write(self, line: str) -> None:
        self.append(f"{line.removesuffix(csv.excel.lineterminator)}\n")


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table under the names of its columns, which `csv_of` reads as it was, line ends inside cells included; a cell
    that a row does not have is empty.
    """
    lines = _Lines()
    writer = csv.DictWriter(lines, columns)
    writer.writeheader()
    writer.writerows(rows)
    return "".join(lines)
