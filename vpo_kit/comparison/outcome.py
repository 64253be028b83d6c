"""How a run of a comparison ended: read from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vpo_kit import step_folders
from vpo_kit.comparison.runner import BASE_SAMPLES, Planned
from vpo_kit.errors import DataError
from vpo_kit.evaluation.samples import Results


@dataclass(frozen=True)
class Machine:
    """What a run cost on this machine; another one, or another day, gives other numbers."""

    seconds: float | None
    """The time of loading, training and the measurement afterwards; what was done again after a kill counts too."""
    seconds_complete: bool
    """Whether all seconds were counted: False where a process was killed together with the command that would have
    counted its seconds.
    """
    peak_memory_mb: int | None
    """Resident memory of the process, not of a GPU."""


ENDED = ("done", "stopped")
"""What a run is when it was trained and measured."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run: ``done``, ``stopped`` by a health check, ``failed`` (it is tried again) or ``open`` (not run yet).

    `passes` are videos through the network in training, without evaluation and validation.
    """

    seed: int
    folder: Path
    status: Literal["done", "stopped", "failed", "open"]
    reason: str
    steps: int
    passes: int
    machine: Machine
    before: Results | None
    after: Results | None
    samples: str = ""
    """Folder of the videos after training, relative to the run's."""
    warnings: Mapping[str, str] = field(default_factory=dict)
    """What health checks warned of, by check, but did not stop the run for."""


def read(planned: Planned) -> Outcome:
    """Raises `DataError` for a folder whose files cannot be read."""
    path, seed = planned.path, planned.run.seed
    attempts = _lines(path / "attempts.jsonl", torn=True)
    if not planned.finished():
        reason = attempts[-1].get("reason", "") if attempts else ""
        machine = _machine(attempts, None)
        return Outcome(
            seed=seed,
            folder=path,
            status="failed" if reason else "open",
            reason=reason,
            steps=0,
            passes=0,
            machine=machine,
            before=None,
            after=None,
        )
    summary = _read(path / "summary.json")
    log = _lines(path / "metrics.jsonl")
    health, samples = summary["health"], f"samples/{step_folders.name(summary['steps'])}"
    return Outcome(
        seed=seed,
        folder=path,
        status="done" if health["ok"] else "stopped",
        reason=health["message"],
        steps=len(log),
        passes=round(sum(row["passes"] for row in log)),
        machine=_machine(attempts, summary["seconds"]),
        before=Results.load(path / BASE_SAMPLES),
        after=Results.load(path / samples),
        samples=samples,
        warnings={name: told for name, told in health.get("warnings", {}).items() if name != health["check"]},
    )


def _machine(attempts: Sequence[Mapping[str, Any]], own: float | None) -> Machine:
    """`own` are the seconds that a finished run gives for its last process; earlier ones are added."""
    ends = [event for event in attempts if event["event"] == "end"]
    lost = sum(event["event"] == "start" for event in attempts) - len(ends)
    by_itself = bool(attempts) and attempts[-1]["event"] == "start" and own is not None  # ended without its parent
    earlier = ends if by_itself or own is None else ends[:-1]
    memory = [event["peak_memory_mb"] for event in ends if event["peak_memory_mb"]]
    seconds = sum(event["seconds"] for event in earlier) + (own or 0.0)
    return Machine(round(seconds, 1) if attempts else None, lost == int(by_itself), max(memory) if memory else None)


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return found


def _lines(path: Path, *, torn: bool = False) -> list[dict[str, Any]]:
    """The rows of a log. With `torn` a line that a full disk has cut is passed over: an event that is not there is a
    process whose seconds are not complete, and no reason to end a comparison for good.
    """
    if not path.is_file():
        return []
    try:
        return [row for line in path.read_text(encoding="utf-8").splitlines() if (row := _row(line, torn)) is not None]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _row(line: str, torn: bool) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        if torn:
            return None
        raise
    return found
