"""What a disk holds after a power cut: of a file only what was synced, of a folder perhaps only the names that were."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OWN_SYNC = (".sqlite", ".sqlite-wal", ".sqlite-shm", ".sqlite-journal")
"""Files of SQLite, which syncs them itself, where Python does not see it."""


class Cuts:
    """States of `folder` as power cuts would leave them, in folders of their own below `place`, each once.

    A cut comes before every sync and after every new name. Two disks are thought of: one that brings names to the
    disk as they are given, and one that has them only when their folder is synced. Both lose the contents of files
    behind the last sync.
    """

    def __init__(self, folder: Path, place: Path) -> None:
        self.states: list[Path] = []
        self._folder, self._place = folder, place
        self._synced: dict[tuple[int, int], tuple[int, int]] = {}
        self._names: dict[tuple[int, int], set[str]] = {}
        self._seen: set[str] = set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """In this block every write of this process to the folder is a place where the power may go."""
        sync, replace, link = os.fsync, Path.replace, os.link

        def synced(handle: int) -> None:
            self.cut()
            sync(handle)
            self._note(handle)

        def after(act: Callable[..., object]) -> Callable[..., object]:
            def done(*args: object, **kwargs: object) -> object:
                found = act(*args, **kwargs)
                self.cut()
                return found

            return done

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "fsync", synced)
            patched.setattr(Path, "replace", after(replace))
            patched.setattr(os, "link", after(link))
            yield
        self.cut()

    def cut(self) -> None:
        """Keep what each of the disks holds now."""
        for lazy in (False, True):
            if not self._folder.is_dir():
                continue
            state = self._place / f"{len(self.states):04d}"
            self._copy(self._folder, state, lazy=lazy)
            content = _digest(state)
            if content in self._seen:
                shutil.rmtree(state)
            else:
                self._seen.add(content)
                self.states.append(state)

    def _note(self, handle: int) -> None:
        stat = os.fstat(handle)
        key = stat.st_dev, stat.st_ino
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path.is_dir():
            self._names[key] = {one.name for one in path.iterdir()}
        else:
            self._synced[key] = stat.st_size, stat.st_mtime_ns

    def _copy(self, source: Path, target: Path, *, lazy: bool) -> None:
        target.mkdir(parents=True)
        stat = source.stat()
        names = self._names.get((stat.st_dev, stat.st_ino), set())
        for path in sorted(source.iterdir()):
            if lazy and path.name not in names:
                continue
            if path.is_dir():
                self._copy(path, target / path.name, lazy=lazy)
                continue
            there = path.stat()
            size, changed = self._synced.get((there.st_dev, there.st_ino), (0, 0))
            content = path.read_bytes()
            if path.suffix not in OWN_SYNC and changed != there.st_mtime_ns:
                content = content[: min(size, there.st_size)]
            (target / path.name).write_bytes(content)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()
