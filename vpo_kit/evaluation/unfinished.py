"""Videos of an evaluation that is not whole yet, each known by its prompt and its number and not by its place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vpo_kit import files

PARTS = ".parts"


class Parts:
    """Videos and their metrics under their keys, in `PARTS` of an evaluation's folder, until all are there.

    `made_with` is what all videos have in common; those that were made with something else do not count.
    """

    def __init__(self, folder: Path, made_with: Mapping[str, Any]) -> None:
        self._path = folder / PARTS
        self._made_with = made_with

    def video(self, key: str) -> Path:
        return self._path / f"{key}.mp4"

    def done(self, key: str) -> bool:
        """Whether it has been measured and the video is the one that was."""
        try:
            found = json.loads(self._listing(key).read_text(encoding="utf-8"))
            return bool(found["made_with"] == self._made_with and found["sha256"] == files.sha256(self.video(key)))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def put(self, key: str, metrics: Mapping[str, float]) -> None:
        """Say that a video which lies in its place is done, and what was measured. Raises `OutputError`."""
        about = {"made_with": self._made_with, "sha256": files.sha256(self.video(key)), "metrics": metrics}
        files.write(self._listing(key), json.dumps(about))

    def joined(self, keys: Sequence[str]) -> dict[str, list[float]]:
        """The metrics that all of them have, a value for each."""
        found: dict[str, list[float]] = {}
        for key in keys:
            for name, value in json.loads(self._listing(key).read_text(encoding="utf-8"))["metrics"].items():
                found.setdefault(name, []).append(value)
        return {name: values for name, values in found.items() if len(values) == len(keys)}

    def drop(self) -> None:
        shutil.rmtree(self._path, ignore_errors=True)

    def _listing(self, key: str) -> Path:
        return self._path / f"{key}.json"
