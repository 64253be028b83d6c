"""What is known of the files of a folder, kept between runs: how much video each holds, and its hash.

A file is known by its name, size and time of change. Where these differ it is hashed; where the hash is an old one (it
was copied, moved or touched) nothing else is done, else it is looked through (`vpo_kit.video.scan`). The index is a
file of JSON lines under ``~/.cache/vpo`` (``$VPO_CACHE``), not in the folder, which may be somebody else's. Lines are
only added, the last one of a name counts, and one that is damaged is passed over: it can be killed, shared by processes
and deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vpo_kit import files
from vpo_kit.errors import OutputError
from vpo_kit.video import Extent, scan, version

BATCH = 32
"""Files in one run of ffmpeg: more start it less often, fewer share a run with a damaged file."""

Progress = Callable[[int, int], None]
"""A function that is told how many files were looked through, and of how many."""


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file as it was when it was looked through; `found` is its video, or why it has none."""

    size: int
    mtime_ns: int
    sha256: str
    found: Extent | str


def look_through(
    folder: Path, names: Sequence[str], progress: Progress = lambda done, total: None
) -> dict[str, IndexedFile]:
    """What is known of the files `names` of `folder`; those that are new or have changed are looked through, several
    at once. Files that cannot be opened are left out.
    """
    index = _Index(folder)
    old = index.read()
    stats = {name: stat for name in dict.fromkeys(names) if (stat := _stat(folder / name)) is not None}
    fresh = {name: old[name] for name, stat in stats.items() if name in old and _same(old[name], stat)}
    wanted = [name for name in stats if name not in fresh]
    if not wanted:
        return fresh
    by_hash = {known.sha256: known.found for known in old.values()}
    done = 0
    progress(done, len(wanted))
    for part in _in_parallel(folder, wanted, by_hash):
        index.add(part)
        fresh |= part
        done += len(part)
        progress(done, len(wanted))
    return fresh


def _in_parallel(
    folder: Path, names: Sequence[str], by_hash: Mapping[str, Extent | str]
) -> Iterator[dict[str, IndexedFile]]:
    """Batches of files in order, one on each core: the work is done by ffmpeg and by the hash, outside of Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = min(BATCH, -(-len(names) // cores))
    batches = [names[i : i + size] for i in range(0, len(names), size)]
    pool = ThreadPoolExecutor(cores)
    try:
        yield from pool.map(lambda batch: _looked_through(folder, batch, by_hash), batches)
    finally:
        pool.shutdown(cancel_futures=True)


def _looked_through(folder: Path, names: Sequence[str], by_hash: Mapping[str, Extent | str]) -> dict[str, IndexedFile]:
    hashed: dict[str, tuple[os.stat_result, str]] = {}
    for name in names:
        with suppress(OSError), (folder / name).open("rb") as file:
            hashed[name] = os.fstat(file.fileno()), hashlib.file_digest(file, "sha256").hexdigest()
    new = [name for name, (_, sha256) in hashed.items() if sha256 not in by_hash]
    found = dict(zip(new, scan([folder / name for name in new]), strict=True))
    return {
        name: IndexedFile(stat.st_size, stat.st_mtime_ns, sha256, found[name] if name in found else by_hash[sha256])
        for name, (stat, sha256) in hashed.items()
    }


class _Index:
    """The lines of one folder. Where the disk refuses, nothing is kept."""

    def __init__(self, folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
        home = files.cache()
        self._path = home / "clips" / f"{name}.jsonl" if home is not None else None
        self._about = {"folder": str(folder.resolve()), "reader": version()}

    def read(self) -> dict[str, IndexedFile]:
        """All that is there, by name; what another reader wrote is deleted."""
        if self._path is None:
            return {}
        found: dict[str, IndexedFile] = {}
        count = 0
        try:
            with self._path.open(encoding="utf-8", errors="replace") as lines:
                if json.loads(next(lines, "null")) != self._about:
                    raise ValueError("another reader's")
                for line in lines:
                    count += 1
                    with suppress(ValueError, KeyError, TypeError, RecursionError):
                        name, known = _parse(json.loads(line))
                        found[name] = known
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            self._rewrite({})
            return {}
        if count > 2 * len(found) + BATCH:
            self._rewrite(found)
        return found

    def add(self, part: Mapping[str, IndexedFile]) -> None:
        """More lines, in one piece: other processes may be adding theirs."""
        if self._path is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            begin = "" if self._path.is_file() else self._head()
            with self._path.open("a", encoding="utf-8") as file:
                file.write(begin + _lines(part))

    def _rewrite(self, found: Mapping[str, IndexedFile]) -> None:
        assert self._path is not None
        with suppress(OutputError), files.beside(self._path, shared=True) as partial:
            partial.write_text(self._head() + _lines(found), encoding="utf-8")

    def _head(self) -> str:
        return json.dumps(self._about) + "\n"


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def _same(known: IndexedFile, stat: os.stat_result) -> bool:
    return (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def _lines(part: Mapping[str, IndexedFile]) -> str:
    return "".join(json.dumps({"name": name, **asdict(known)}) + "\n" for name, known in part.items())


def _parse(row: dict[str, Any]) -> tuple[str, IndexedFile]:
    found = row["found"] if isinstance(row["found"], str) else Extent(**row["found"])
    return str(row["name"]), IndexedFile(int(row["size"]), int(row["mtime_ns"]), str(row["sha256"]), found)
