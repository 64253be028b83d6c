"""Folders that are named by an optimiser step, ``step-000200``, and their order. No torch here."""

from __future__ import annotations

from pathlib import Path


def name(step: int) -> str:
    """The name of the folder of a step."""
    return f"step-{step:06d}"


def by_step(folder: Path) -> dict[int, Path]:
    """The folders in `folder` that are named by a step, the earliest first: as numbers, since the seventh digit of a
    long run would put it before the others. What is named in any other way is somebody else's.
    """
    ends = {path.name.removeprefix("step-"): path for path in folder.glob("step-*")}
    steps = {int(end): path for end, path in ends.items() if end.isdecimal()}
    return {step: steps[step] for step in sorted(steps) if steps[step].name == name(step)}
