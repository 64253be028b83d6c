"""Prompt files: one prompt a line, or a column of a csv or jsonl file; and sets known by name. No torch here.

In plain text empty lines and lines that start with # do not count. Rows of a csv or jsonl file may name pictures.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vpo_kit import plain
from vpo_kit.errors import DataError
from vpo_kit.inputs import ImageFile, Inputs
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
PICTURES = ("image", "last_image")
"""The columns with the pictures that a video begins and ends with: files, by paths inside the prompt file's folder."""


def read_prompts(path: Path) -> list[str]:
    """All prompts of a file, in order, without repeats; ``FILE.csv:COLUMN`` names a column. Raises `DataError`."""
    return list(dict.fromkeys(item.prompt for item in read_inputs(path)))


def read_inputs(path: Path) -> list[Inputs]:
    """All items of a file, in order, without repeats: prompts, with pictures where the file has columns for them.

    Raises `DataError`, which names the first picture that is missing, not an image, or outside the file's folder.
    """
    file, column = _split(path)
    if str(path) in ELSEWHERE and not file.is_file():
        raise DataError(f"the prompts {path} do not come with vpo: {ELSEWHERE[str(path)]}; give the file")
    if file.suffix.lower() in (".csv", ".jsonl"):
        found = _rows(file, column)
    else:
        found = [Inputs(line) for line in plain.lines(plain.read(file)) if not line.strip().startswith("#")]
    cleaned = (replace(item, prompt=plain.one_line(item.prompt)) for item in found)
    known: dict[tuple[str, ...], Inputs] = {}
    for item in cleaned:
        if item.prompt:
            known.setdefault((item.prompt, *item.keys), item)  # a picture under two names is one picture
    items = list(known.values())
    if not items:
        raise DataError(f"{file} holds no prompts: write one a line")
    return items


def _split(path: Path) -> tuple[Path, str | None]:
    """A file and the column behind its name, if there is one."""
    name, colon, column = str(path).rpartition(":")
    if colon and Path(name).suffix.lower() in (".csv", ".jsonl") and not path.exists():
        return Path(name), column
    return path, None


def _rows(path: Path, column: str | None) -> list[Inputs]:
    rows: list[tuple[int, Any]]
    if path.suffix.lower() == ".csv":
        names, lines = plain.csv_rows(path)
        rows = [(number, dict(zip(names, line, strict=True))) for number, line in lines]
    else:
        rows = list(plain.json_lines(path))
    if not all(isinstance(row, dict) for _, row in rows):
        raise DataError(f"{path}: each line is a JSON object")
    if not rows:
        raise DataError(f"{path} holds no prompts: it has no row")
    known = list(dict.fromkeys(str(key) for _, row in rows for key in row))
    name = column or next((name for name in COLUMNS if name in known), None)
    if name is None or name not in known:
        hint = nearest(column or COLUMNS[0], known) or f" (it has {', '.join(known)})"
        wanted = f"no column {column!r}{hint}" if column else f"no column {', '.join(COLUMNS)}{hint}: name one"
        raise DataError(f"{path} has {wanted}, as FILE{path.suffix.lower()}:COLUMN")
    opened: dict[str, ImageFile] = {}
    found = []
    for number, row in rows:
        if isinstance(row.get(name), (list, dict)):
            raise DataError(f"{path}, line {number}: a prompt is a text, not {row[name]!r}")
        item = Inputs(str(row.get(name) or ""), *(_picture(path, number, row.get(key), opened) for key in PICTURES))
        if item.pictures and not item.prompt.strip():
            raise DataError(f"{path}, line {number}: a picture without a prompt: write one or take the row out")
        found.append(item)
    return found


def _picture(path: Path, number: int, name: Any, opened: dict[str, ImageFile]) -> ImageFile | None:
    """The picture of a row, opened once however many rows name it; None for an empty field."""
    if name is None or name == "":
        return None
    if not isinstance(name, str):
        raise DataError(f"{path}, line {number}: a picture is named by its path, not by {name!r}")
    folder = path.parent.resolve()
    try:
        file = (folder / name).resolve()
        file.exists()
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        raise DataError(f"{path}, line {number}: {name[:60]!r} cannot be the name of a picture") from error
    if not file.is_relative_to(folder):
        raise DataError(f"{path}, line {number}: {name} lies outside {path.parent}: put the pictures beside the file")
    if name not in opened:
        try:
            opened[name] = ImageFile.open(path.parent / name)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}; mend the row or take it out") from error
    return opened[name]
