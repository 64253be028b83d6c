"""What the day has found: a small JSON file for each part, written anew with every row, and a log.

The workers' own output goes into the same log.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from vpo_kit import files


class Outcome:
    """The output folder, and how long the day has lasted."""

    def __init__(self, folder: Path, minutes: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.log_file = folder / "log.txt"
        self._started = time.monotonic()
        self._end = self._started + 60 * minutes
        self._rows: dict[str, dict[str, Any]] = {}

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    @property
    def failed(self) -> list[str]:
        """The cases that gave no result, with the reason."""
        every = ((f"{file}: {case}", row) for file, rows in self._rows.items() for case, row in rows.items())
        return [f"{name}: {row['error']}" for name, row in every if "error" in row]

    def log(self, text: str) -> None:
        said = f"{time.monotonic() - self._started:6.1f} s  {text}"
        print(said, flush=True)
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{said}\n")

    def row(self, file: str, case: str, row: dict[str, Any]) -> None:
        """Keep a row, on disk too."""
        self.log(f"{file}: {case}: {row.get('error') or _short(row)}")
        rows = self._rows.setdefault(file, {})
        rows[case] = row
        files.write(self._folder / f"{file}.json", json.dumps({"rows": rows}, indent=1) + "\n")


def _short(row: dict[str, Any]) -> str:
    """The plain values of a row in one line."""
    plain = {key: value for key, value in row.items() if not isinstance(value, dict | list)}
    return json.dumps(plain)[:400]
