"""The rows that people judge: the videos of a board (`vpo compare`) or of an evaluation (`vpo eval`), by item."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpo_kit import step_folders
from vpo_kit.comparison.plan import Row
from vpo_kit.comparison.runner import BASE_SAMPLES
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.evaluation.samples import METRICS, Results

BASE = "base"
CANDIDATES = "base-candidates"
Made = tuple[Path, Results]


@dataclass(frozen=True, kw_only=True)
class StudyRows:
    """What is set against each other: every row has one video of each item, a prompt with a seed."""

    names: Sequence[str]
    """The base first."""
    prompts: Sequence[str]
    """The prompt of each item."""
    videos: Mapping[str, Sequence[Path]]
    """The video of each item, by row."""


def read(source: Path, wanted: Sequence[str] = ()) -> StudyRows:
    """The rows of the board or evaluation in `source`, or only those `wanted` and the base.

    Of a row that was trained with several seeds the items show one run after the other, so that people judge the row
    and not one of its runs. Raises `DataError` for a folder that holds neither and for videos that are missing or of
    other prompts, `ConfigError` for a row that is not there.
    """
    found = _of_board(source) if is_board(source) else _of_eval(source)
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise ConfigError(f"--rows: {source} has no row {unknown[0]!r} (it has {', '.join(found)})")
    kept = {name: made for name, made in found.items() if not wanted or name in wanted or name == BASE}
    if len(kept) < 2:
        raise DataError(f"{source} has one row: there is nothing to set it against")
    first = next(iter(kept.values()))[0][1]
    for name, made in kept.items():
        if any(one.of != first.of for _, one in made):
            raise DataError(f"{source}: {name} was evaluated on other prompts, pictures or seeds than the rest")
    count = len(first.files)
    videos = {name: [_video(made[i % len(made)], i) for i in range(count)] for name, made in kept.items()}
    return StudyRows(names=list(kept), prompts=[first.prompts[group] for group in first.groups], videos=videos)


def every_video(source: Path) -> dict[str, list[Path]]:
    """The videos that lie there of each row, of all of its runs; those that were removed since are not among them."""
    found = _of_board(source) if is_board(source) else _of_eval(source)
    paths = {name: [folder / file for folder, one in made for file in one.files] for name, made in found.items()}
    return {name: [path for path in of if path.is_file()] for name, of in paths.items()}


def is_board(source: Path) -> bool:
    """Whether a folder is what `vpo compare` writes, with a board."""
    return (source / "results.json").is_file() and (source / "runs").is_dir()


def _video(made: Made, item: int) -> Path:
    folder, found = made
    path = folder / found.files[item]
    if not path.is_file():
        raise DataError(f"{path} is missing: run the command that made it again")
    return path


def _of_board(source: Path) -> dict[str, list[Made]]:
    found: dict[str, list[Made]] = {}
    for row in _rows(source / "results.json"):
        name = str(row.get("name"))
        runs = [source / "runs" / f"{Row(name, '', {}).folder}-{run.get('seed')}" for run in row.get("runs", [])]
        steps = [step_folders.by_step(run / "samples") for run in runs]
        made = [_made(folders[max(folders)]) for folders in steps if max(folders, default=0)]
        if made:
            found.setdefault(BASE, [_made(made[0][0].parent / BASE_SAMPLES.name)])
            found[name] = made
    return found


def _of_eval(source: Path) -> dict[str, list[Made]]:
    folders = sorted(path.parent for path in (source / "videos").glob(f"*/{METRICS}") if path.parent.name != CANDIDATES)
    if not folders:
        raise DataError(f"{source} holds no board and no evaluation: give a folder of vpo compare or vpo eval")
    folders.sort(key=lambda path: path.name != BASE)
    return {path.name: [_made(path)] for path in folders}


def _made(folder: Path) -> Made:
    return folder, Results.load(folder)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return [dict(row) for row in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as what vpo compare writes: {error}") from error
