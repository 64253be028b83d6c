"""Prompt files: one prompt a line, or a column of a csv or jsonl file; and sets known by name. No torch here.

In plain text empty lines and lines that start with # do not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vpo_kit import plain
from vpo_kit.errors import DataError
from vpo_kit.registry import nearest

ELSEWHERE = {
    "vbench": "github.com/Vchitect/VBench has it as prompts/all_dimension.txt, one prompt a line",
    "videogen-eval": "github.com/AILab-CVC/VideoGen-Eval has it under docs/specifc_model/prompts as VGenEval_T2V.xlsx: "
    "save it as csv",
    "ta-hard": "github.com/KwaiVGI/VideoAlign, whose authors made it, says where it is",
}
"""Prompt sets by name, and where to get them: none of them is ours to ship."""
COLUMNS = ("prompt", "text", "caption")
"""What the column of a csv or jsonl file may be called where none is named."""


def read_prompts(path: Path) -> list[str]:
    """All prompts of a file, in order, without repeats; ``FILE.csv:COLUMN`` names a column. Raises `DataError`."""
    file, column = _split(path)
    if str(path) in ELSEWHERE and not file.is_file():
        raise DataError(f"the prompts {path} do not come with vpo: {ELSEWHERE[str(path)]}; give the file")
    found = _column(file, column) if file.suffix.lower() in (".csv", ".jsonl") else _plain(plain.read(file))
    prompts = list(dict.fromkeys(" ".join(line.split()) for line in found if line.strip()))
    if not prompts:
        raise DataError(f"{file} holds no prompts: write one a line")
    return prompts


def _plain(text: str) -> Iterable[str]:
    return (line for line in plain.lines(text) if not line.strip().startswith("#"))


def _split(path: Path) -> tuple[Path, str | None]:
    """A file and the column behind its name, if there is one."""
    name, colon, column = str(path).rpartition(":")
    if colon and Path(name).suffix.lower() in (".csv", ".jsonl") and not path.exists():
        return Path(name), column
    return path, None


def _column(path: Path, column: str | None) -> list[str]:
    if path.suffix.lower() == ".csv":
        names, lines = plain.csv_rows(path)
        rows: list[Any] = [dict(zip(names, line, strict=True)) for _, line in lines]
    else:
        rows = [row for _, row in plain.json_lines(path)]
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: each line is a JSON object")
    known = list(dict.fromkeys(str(key) for row in rows for key in row))
    name = column or next((name for name in COLUMNS if name in known), None)
    if name is None or name not in known:
        hint = nearest(column or COLUMNS[0], known) or f" (it has {', '.join(known)})"
        wanted = f"no column {column!r}{hint}" if column else f"no column {', '.join(COLUMNS)}{hint}: name one"
        raise DataError(f"{path} has {wanted}, as FILE{path.suffix.lower()}:COLUMN")
    return [str(row.get(name) or "") for row in rows]
