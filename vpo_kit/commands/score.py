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
from vpo_kit.video import SUFFIXES, motion, read_video


def run(paths: Sequence[Path], reward_name: str, prompt: str | None, assignments: Sequence[str]) -> None:
    """Print a table: file, each reward's score, motion. Raises `DataError` for what is no video."""
    settings = config.read_assignments(assignments).get("reward", {})
    plans = rewards.plan(reward_name, settings)
    needy = [p.spec.name for p in plans if p.spec.needs_prompt]
    if needy and prompt is None:
        raise ConfigError(f"reward {needy[0]!r} judges a video by its prompt: give --prompt")
    files = _files(paths)
    clips = [read_video(path) for path in files]
    judges = rewards.load(plans, torch.device("cpu")).parts
    table = Table(Column("file", overflow="fold"), *(judge.spec.name for judge in judges), "motion")
    for path, (video, fps) in zip(files, clips, strict=True):
        with torch.no_grad():
            scores = [judge(video[None], [prompt or ""], fps=fps).score for judge in judges]
        table.add_row(str(path), *(f"{float(score):.4f}" for score in scores), f"{float(motion(video[None])):.4f}")
    Console().print(table)


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
