"""The run folder: who may write into it, its settings and its log."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpo_kit.config import Run, build, dump, read_file
from vpo_kit.errors import ConfigError, OutputError

MAY_CHANGE = {"steps", "checkpoints", "health", "output"}
"""Settings that a resumed run may change: none of them changes a step's result."""


@dataclass(frozen=True)
class RunFolder:
    """``config.yaml``, ``metrics.jsonl``, ``summary.json``, ``checkpoints/``, ``samples/`` and ``lora/`` of one run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def holds_run(self) -> bool:
        return (self.path / "config.yaml").is_file()

    def check(self, run: Run, *, resume: bool, overwrite: bool) -> None:
        """May `run` be written here? Raises `OutputError`, or `ConfigError` for a resumed run with other settings."""
        if self.holds_run and not (resume or overwrite):
            raise OutputError(f"{self.path} already holds a run: go on with --resume or replace it with --overwrite")
        if self.holds_run and resume:
            self._check_same(run)
        elif self.path.exists() and any(self.path.iterdir()) and not (self.holds_run and overwrite):
            raise OutputError(f"{self.path} is not empty and holds no run: give another --output")

    def start(self, run: Run, *, resume: bool) -> None:
        """Make the folder ready, without an old run where this is a new one. Raises `OutputError`."""
        if self.holds_run and not resume:
            self._remove_run()
        self.write("config.yaml", dump(run))

    def write(self, name: str, text: str) -> None:
        """Write a file whole, or leave the old one. Raises `OutputError`."""
        target = self.path / name
        partial = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text, encoding="utf-8")
            partial.replace(target)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise OutputError(f"cannot write {target}: {error.strerror or error}") from error

    def append(self, row: dict[str, Any]) -> None:
        """Add one line to ``metrics.jsonl`` and bring it to the disk. Raises `OutputError`."""
        try:
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(row, allow_nan=False) + "\n")
                log.flush()
                os.fsync(log.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self.path / 'metrics.jsonl'}: {error.strerror or error}") from error

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drop the log's lines after `step` (a killed run's last ones) and return those that stay."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        rows = [json.loads(line) for line in lines[:step]]
        self.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        return rows

    def _check_same(self, run: Run) -> None:
        old = build(read_file(self.path / "config.yaml")).model_dump(mode="json")
        new = run.model_dump(mode="json")
        changed = [key for key in new if key not in MAY_CHANGE and new[key] != old[key]]
        if changed:
            raise ConfigError(f"--resume: {', '.join(changed)} differ from {self.path / 'config.yaml'}: only "
                              f"{', '.join(sorted(MAY_CHANGE))} may change")  # fmt: skip

    def _remove_run(self) -> None:
        """Remove what runs write and nothing else: the folder may hold a user's own files."""
        for name in ("checkpoints", "samples", "lora"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in ("config.yaml", "metrics.jsonl", "summary.json", "report.html"):
            (self.path / name).unlink(missing_ok=True)
