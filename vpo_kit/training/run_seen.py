"""How far a run is, from what it has written in its folder. No torch here: `vpo runs` and `vpo watch` read it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpo_kit import config
from vpo_kit.errors import DataError
from vpo_kit.files import LOCK


@dataclass(frozen=True, kw_only=True)
class RunSeen:
    """A run as its folder shows it; `gain` is the change of its own reward on held-out prompts, once it is measured."""

    path: Path
    method: str
    step: int
    steps: int
    reward: float | None
    gain: float | None
    state: str


def look(path: Path) -> RunSeen:
    """What a run's folder says. Raises `DataError` for a folder without a run."""
    if not (path / "config.yaml").is_file():
        raise DataError(f"{path} holds no run: it has no config.yaml")
    values = config.read_file(path / "config.yaml")
    method = values.get("method", {})
    rows, summary = list(rows_of(path)), _summary(path)
    change = summary.get("changes", {}).get(summary.get("reward"), {})
    return RunSeen(
        path=path,
        method=str(method.get("name", "?")) if isinstance(method, dict) else str(method),
        step=len(rows),
        steps=int(values.get("steps", 0)),
        reward=rows[-1].get("reward_mean") if rows else None,
        gain=change.get("difference"),
        state=_state(path, summary),
    )


def is_run(path: Path) -> bool:
    """Whether the ``config.yaml`` in a folder is a run's: trackers write files of that name too."""
    values = config.read_file(path / "config.yaml")
    return "method" in values and isinstance(values.get("steps"), int)


def _state(path: Path, summary: Mapping[str, Any]) -> str:
    if _held(path):
        return "running"
    if not summary:
        return "broken off (--resume goes on)"
    check = summary.get("health", {}).get("check")
    return f"stopped by {check}" if check else "done"


def _held(path: Path) -> bool:
    """Whether a process is at work in the folder, which may be another user's: the lock is looked at for reading."""
    if not (path / LOCK).is_file():
        return False
    with (path / LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # freed with the file
        except BlockingIOError:
            return True
    return False


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of the log at `path`, its whole lines alone: the last one may be half written."""
    log = path / "metrics.jsonl"
    for line in log.read_text(encoding="utf-8").split("\n")[:-1] if log.is_file() else []:
        yield json.loads(line)


def _summary(path: Path) -> dict[str, Any]:
    file = path / "summary.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found
