"""Hashes of a set's files, kept between runs: one whose size and time are those of the last look is not read again.

Kept as JSON lines under ``~/.cache/vpo`` (``$VPO_CACHE``), where what is known of clips is too. Lines are only added,
the last one of a name counts, and one that is damaged is passed over. What changes a file and leaves its time is found
by ``vpo pair check``, which reads everything.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from vpo_kit import files

Facts = tuple[int, int, str]
"""Size, time of change in nanoseconds, SHA-256 in hexadecimal digits."""
BATCH = 256
"""How many new lines are written at once."""


class Hashed:
    """The hashes of the files of one folder. `keep` writes what is new; where the disk refuses, nothing is kept."""

    def __init__(self, folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
        home = files.cache()
        self._folder = folder
        self._path = home / "sets" / f"{name}.jsonl" if home is not None else None
        self._known = self._read()
        self._new: dict[str, Facts] = {}

    def __call__(self, path: Path) -> str:
        """SHA-256 of a file. Raises `OSError`."""
        stat, name = path.stat(), str(path.relative_to(self._folder))
        known = self._known.get(name)
        if known is None or known[:2] != (stat.st_size, stat.st_mtime_ns):
            known = self._known[name] = self._new[name] = (stat.st_size, stat.st_mtime_ns, files.sha256(path))
            if len(self._new) >= BATCH:
                self.keep()
        return known[2]

    def keep(self) -> None:
        """Bring the new lines to the disk, in one piece: other processes may be adding theirs."""
        if self._path is None or not self._new:
            return
        lines = "".join(json.dumps([name, *facts]) + "\n" for name, facts in self._new.items())
        self._new = {}
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" + lines)  # behind one that a kill cut short

    def _read(self) -> dict[str, Facts]:
        found: dict[str, Facts] = {}
        with suppress(OSError):
            for line in (self._path or self._folder / "none").read_text(encoding="utf-8", errors="replace").split("\n"):
                with suppress(ValueError, TypeError, RecursionError):
                    name, size, changed, sha256 = json.loads(line)
                    found[str(name)] = (int(size), int(changed), str(sha256))
        return found
