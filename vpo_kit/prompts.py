"""Prompt files: one prompt a line, or a column of a csv or jsonl file; and sets known by name. No torch here.

In plain text empty lines and lines that start with # do not count.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

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
    if str(path) in ELSEWHERE and not file.exists():
        raise DataError(f"the prompts {path} do not come with vpo: {ELSEWHERE[str(path)]}; give the file")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the prompts {file}: {getattr(error, 'strerror', None) or error}") from error
    kind = file.suffix.lower()
    lines = _column(file, text, column) if kind in (".csv", ".jsonl") else _plain(text)
    prompts = list(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    if not prompts:
        raise DataError(f"{file} holds no prompts: write one a line")
    if any("\0" in prompt for prompt in prompts):
        raise DataError(f"{file} holds a zero byte: it is not a text file")
    return prompts


def _plain(text: str) -> Iterable[str]:
    return (line for line in text.splitlines() if not line.strip().startswith("#"))


def _split(path: Path) -> tuple[Path, str | None]:
    """A file and the column behind its name, if there is one."""
    name, colon, column = str(path).rpartition(":")
    if colon and Path(name).suffix.lower() in (".csv", ".jsonl") and not path.exists():
        return Path(name), column
    return path, None


def _column(path: Path, text: str, column: str | None) -> list[str]:
    try:
        if path.suffix.lower() == ".csv":
            rows = list(csv.DictReader(io.StringIO(text)))
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (csv.Error, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as {path.suffix[1:]}: {str(error).splitlines()[0]}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: each line is a JSON object")
    known = list(dict.fromkeys(str(key) for row in rows for key in row if key is not None))
    name = column or next((name for name in COLUMNS if name in known), None)
    if name is None or name not in known:
        hint = nearest(column or COLUMNS[0], known) or f" (it has {', '.join(known)})"
        wanted = f"no column {column!r}{hint}" if column else f"no column {', '.join(COLUMNS)}{hint}: name one"
        raise DataError(f"{path} has {wanted}, as FILE{path.suffix.lower()}:COLUMN")
    return [str(row.get(name) or "") for row in rows]
