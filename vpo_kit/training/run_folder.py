"""The run folder: who may write into it, its settings and its log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpo_kit import files, formats
from vpo_kit.config import Run, build, dump, read_file
from vpo_kit.errors import ConfigError, DataError, OutputError

MAY_CHANGE = {"steps", "checkpoints", "health", "output", "cache", "samples", "tracking"}
"""Settings that a resumed run may change: none changes a step's result, but `steps` where the rate falls to its end."""


@dataclass(frozen=True)
class RunFolder:
    """``config.yaml``, ``contents.json``, ``metrics.jsonl``, ``summary.json``, ``checkpoints/``, ``samples/`` and
    ``lora/`` of one run.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def holds_run(self) -> bool:
        return (self.path / "config.yaml").is_file()

    def check(self, run: Run, *, resume: bool, overwrite: bool) -> None:
        """Check that `run` may be written here. Raises `OutputError`, or `ConfigError` for a resumed run with other
        settings.
        """
        if self.holds_run and not (resume or overwrite):
            raise OutputError(f"{self.path} already holds a run: go on with --resume or replace it with --overwrite")
        if self.holds_run and resume:
            self._check_same(run)
        elif not files.bare(self.path) and not (self.holds_run and overwrite):
            raise OutputError(f"{self.path} is not empty and holds no run: give another --output")

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """The folder as this process's own: a second run that writes into it would spoil both.

        The lock is the system's and ends with its process, however that ends. Raises `OutputError`.
        """
        with files.claimed(self.path, "run"):
            yield

    def start(self, run: Run, *, resume: bool) -> None:
        """Make the folder ready, without an old run where this is a new one. Raises `OutputError`."""
        if self.holds_run and not resume:
            self._remove_run()
        files.remove(self.path / "summary.json")  # a run that goes on is not done
        self.write("config.yaml", dump(run))

    def write(self, name: str, text: str) -> None:
        """Write a file whole, or leave the old one. Raises `OutputError`."""
        files.write(self.path / name, text)

    def append(self, row: dict[str, Any]) -> None:
        """Add one line to ``metrics.jsonl`` and bring it to the disk. Raises `OutputError`."""
        files.append(self.path / "metrics.jsonl", json.dumps(row, allow_nan=False))

    def log(self) -> list[Mapping[str, float]]:
        """The rows of ``metrics.jsonl`` so far; a run may have failed at its first step and have none."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return [json.loads(line) for line in lines]

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drop the log's lines after `step` (a killed run's last ones) and return those that stay.

        Raises `DataError` where they are not those of the steps up to there.
        """
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().splitlines() if path.is_file() else []
        rows = [_row(path, number, line) for number, line in enumerate(lines[:step], 1)]
        if len(rows) < step:
            raise DataError(f"{path} ends after step {len(rows)} of {step}: put it right, or give --overwrite")
        self.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        return rows

    def _check_same(self, run: Run) -> None:
        values = read_file(self.path / "config.yaml")
        formats.unchanged(values, self.path / "config.yaml", "run")
        old = build(values).model_dump(mode="json")
        new = run.model_dump(mode="json")
        changed = [key for key in new if key not in MAY_CHANGE and new[key] != old[key]]
        if changed:
            raise ConfigError(
                f"--resume: {', '.join(changed)} differ from {self.path / 'config.yaml'}: only "
                f"{', '.join(sorted(MAY_CHANGE))} may change"
            )

    def _remove_run(self) -> None:
        """Remove what runs write and nothing else: the folder may hold a user's own files. Raises `OutputError`.

        The settings go last: until then the folder of a run that is killed here still holds a run.
        """
        for name in (
            "checkpoints", "samples", "lora", "tracking",
            "metrics.jsonl", "summary.json", "report.html", "contents.json", "config.yaml",
        ):  # fmt: skip
            files.remove(self.path / name)


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    numbers = isinstance(row, dict) and all(isinstance(value, int | float) for value in row.values())
    if not numbers or row.get("step") != number:
        raise DataError(f"{path}, line {number} is not step {number}'s: put it right, or begin anew with --overwrite")
    return row  # type: ignore[no-any-return]
