"""`vpo runs` and `vpo watch`: how far runs are, from what they have written. No torch here."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vpo_kit import config
from vpo_kit.errors import DataError
from vpo_kit.files import LOCK

POLL_S, ALIVE_S = 1.0, 10.0
"""Seconds between looks at the log, and at whether a process still holds the run."""
SHOWN = {"reward_mean": "reward", "implicit_accuracy": "accuracy", "motion": "motion", "loss": "loss"}


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


def show(folder: Path) -> None:
    """A line for each run below `folder`. Raises `DataError` where there is none."""
    found = [look(path.parent) for path in sorted(folder.rglob("config.yaml"))]
    if not found:
        raise DataError(f"{folder} holds no runs: give the folder that they are in")
    names = [str(one.path.relative_to(folder)) for one in found]
    wide = max(10, min(36, max(map(len, names))))
    print(f"{'run':{wide}}  {'method':10} {'step':>9} {'reward':>8} {'gain':>7}  state")
    for name, one in zip(names, found, strict=True):
        print(
            f"{name:{wide}}  {one.method:10} {f'{one.step}/{one.steps}':>9} {_number(one.reward, '.3f'):>8} "
            f"{_number(one.gain, '+.3f'):>7}  {one.state}"
        )


def watch(path: Path) -> None:
    """Print a run's steps as they are logged, until it ends. Raises `DataError` for what is no run."""
    one = look(path)
    print(f"{path}: {one.method}, {one.steps} steps, {one.state}", flush=True)
    shown, looked = 0, time.monotonic()
    while True:
        rows = list(_rows(path))
        for row in rows[shown:]:
            numbers = "  ".join(f"{label} {row[key]:.3g}" for key, label in SHOWN.items() if key in row)
            print(f"step {int(row['step'])}/{one.steps}  {numbers}", flush=True)
        shown = len(rows)
        if one.state != "running":
            break
        time.sleep(POLL_S)
        if time.monotonic() - looked > ALIVE_S:
            one, looked = look(path), time.monotonic()
    gain = "" if one.gain is None else f", reward {one.gain:+.3f} on held-out prompts"
    print(f"{path}: {one.state} after step {one.step} of {one.steps}{gain}")


def look(path: Path) -> RunSeen:
    """What a run's folder says. Raises `DataError` for a folder without a run."""
    if not (path / "config.yaml").is_file():
        raise DataError(f"{path} holds no run: it has no config.yaml")
    values = config.read_file(path / "config.yaml")
    method = values.get("method", {})
    rows, summary = list(_rows(path)), _summary(path)
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


def _state(path: Path, summary: Mapping[str, Any]) -> str:
    if _held(path):
        return "running"
    if not summary:
        return "broken off (--resume goes on)"
    check = summary.get("health", {}).get("check")
    return f"stopped by {check}" if check else "done"


def _held(path: Path) -> bool:
    """Whether a process is at work in the folder."""
    if not (path / LOCK).is_file():
        return False
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The log's whole lines: the last one may be half written."""
    log = path / "metrics.jsonl"
    for line in log.read_text(encoding="utf-8").split("\n")[:-1] if log.is_file() else []:
        yield json.loads(line)


def _summary(path: Path) -> dict[str, Any]:
    file = path / "summary.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
