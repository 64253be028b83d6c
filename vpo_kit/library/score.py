"""`vpo score`: clips judged by a reward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Column, Table

from vpo_kit import config
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Reward
from vpo_kit.video import SUFFIXES, motion, read_video


def run(paths: Sequence[Path], reward_name: str, prompt: str | None, assignments: Sequence[str]) -> None:
    """Print a table: file, each reward's score, motion; one clip is in memory at a time.

    What cannot be read or judged is named and left out. Raises `DataError` at the end where there is such a clip.
    """
    settings = config.read_assignments(assignments).get("reward", {})
    plans = rewards.plan(reward_name, settings)
    needy = [p.spec.name for p in plans if p.spec.needs_prompt]
    if needy and prompt is None:
        raise ConfigError(f"reward {needy[0]!r} judges a video by its prompt: give --prompt")
    files = _files(paths)
    judges = rewards.load(plans, torch.device("cpu")).parts
    console = Console()
    table = Table(Column("file", overflow="fold"), *(judge.spec.name for judge in judges), "motion")
    wrong = []
    for path in files:
        try:
            table.add_row(str(path), *_row(path, judges, prompt or "", console))
        except DataError as error:
            wrong.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    if table.row_count:
        console.print(table)
    for line in wrong[:-1]:
        console.print(f"left out: {line}", soft_wrap=True, markup=False)
    if wrong:
        raise DataError(f"{len(wrong)} of {len(files)} clips left out: {wrong[-1]}")


def _row(path: Path, judges: Sequence[Reward], prompt: str, console: Console) -> list[str]:
    footage = read_video(path)
    if footage.notice:
        console.print(f"{path}: {footage.notice}", soft_wrap=True, markup=False)
    video = footage.frames[None]
    with torch.no_grad():
        scores = [judge(video, [prompt], fps=footage.fps).score for judge in judges]
    return [*(f"{float(score):.4f}" for score in scores), f"{float(motion(video)):.4f}"]


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found.extend(sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES))
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"there is no {path}")
    if not found:
        raise DataError(f"no clips in {', '.join(map(str, paths))}: {', '.join(sorted(SUFFIXES))} are read")
    return found
