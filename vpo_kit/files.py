"""Files that are whole or not there: written beside, brought to the disk, renamed. Hashes, links and locks.

What says "done" may only be written after what it speaks of is on the disk: a file written here is, when the call
returns, and a power cut after it loses nothing. No torch at import.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from vpo_kit.errors import OutputError, first_line

if TYPE_CHECKING:
    from torch import Tensor

LOCK = ".lock"
"""The file in a folder by which a process holds the folder."""

PIECE, PIECES = 2**16, 64
"""Bytes of a place that `glance` reads of a file, and of how many places."""


@contextmanager
def beside(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A hidden place beside `path` for a file or a folder, which takes the place of `path` at the end, synced.

    Where anything fails there, nothing is left of it and what `path` was before stays. The hidden name keeps the
    suffix of `path`, and is the same each time, so that the rest of a killed process does not stay either; with
    `shared` it is a new one each time, for files that several processes may write at once. Raises `OutputError` for
    an `OSError`.
    """
    mark = f"{os.getpid()}-{secrets.token_hex(4)}.part" if shared else "part"
    absolute = path.absolute()
    partial = absolute.with_name(f".{path.stem}.{mark}{path.suffix}")
    try:
        absolute.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        yield partial
        _sync_all(partial)
        if absolute.is_dir():
            _remove(absolute)  # only a file takes the place of another in one move
        partial.replace(absolute)
        sync_folder(absolute.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise OutputError(f"cannot write {path}: {reason}") from error
    finally:
        with suppress(OSError):
            _remove(partial)


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole (text as UTF-8), or leave the old one. Raises `OutputError`."""
    with beside(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it; nothing where it is not there. Raises `OutputError`."""
    try:
        _remove(path)
    except OSError as error:
        raise OutputError(f"cannot remove {error.filename or path}: {error.strerror or error}") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file whole, or leave the old one. Raises `OutputError`."""
    with beside(path) as partial:
        put_tensors(partial, tensors, metadata)


def put_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file as it comes, for a place that `beside` gave; readable by whom other files are."""
    from safetensors.torch import save_file

    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(whole, path, None if metadata is None else dict(metadata))
    path.chmod(0o644)  # safetensors makes its files private


def append(path: Path, line: str) -> None:
    """Add one line to a text file and bring it to the disk, the name of a new file too; a line that a kill cut short is
    ended first.

    Raises `OutputError`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("ab+") as file:
            if file.tell() and not _ends_line(path):
                file.write(b"\n")
            file.write(f"{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def cache() -> Path | None:
    """The folder for what can be found anew: ``$VPO_CACHE``, else ``~/.cache/vpo``; None where there is no home."""
    if given := os.environ.get("VPO_CACHE"):
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vpo"
    except RuntimeError:  # nobody's home
        return None


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def glance(path: Path) -> str:
    """What a file, or all files below a folder, are known by without reading large ones whole: sizes, and up to 64
    places of each, in hexadecimal digits. Other weights differ in all places; one changed byte may lie between them.

    Hidden files do not count. Raises `OSError`.
    """
    digest = hashlib.sha256()
    inner = [p for p in path.rglob("*") if p.is_file() and not p.relative_to(path).as_posix().startswith(".")]
    for one in sorted(inner) if path.is_dir() else [path]:
        size = one.stat().st_size
        digest.update(f"{one.relative_to(path).as_posix()} {size};".encode())
        with one.open("rb") as file:
            for place in range(0, size, max(PIECE, size // PIECES)):
                file.seek(place)
                digest.update(file.read(PIECE))
    return digest.hexdigest()


def bare(folder: Path) -> bool:
    """Whether nothing lies at `folder`, or a folder with nothing in it but its lock and what a process has left that
    was killed, or lost its power, before its first file there had its name.
    """
    if not folder.is_dir():
        return not folder.exists()
    return all(path.name == LOCK or re.fullmatch(r"\..+\.part(\.[^.]*)?", path.name) for path in folder.iterdir())


def inside(folder: Path, path: Path) -> bool:
    """Whether `path`, its links followed, lies in `folder`. Raises `OSError` or `ValueError` for what can be no path.

    A snapshot in the Hugging Face cache is made of links into the ``blobs`` beside ``snapshots``: they belong to it.
    """
    root, target = folder.resolve(), path.resolve()
    if target.is_relative_to(root):
        return True
    cached = next((part.parent.parent for part in (root, *root.parents) if part.parent.name == "snapshots"), None)
    return cached is not None and target.is_relative_to(cached / "blobs")


def link(source: Path, target: Path) -> None:
    """A hard link where the disk allows it, else a copy; nothing where the target is there. Raises `OutputError`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source.resolve(), target)
    except FileExistsError:
        return
    except OSError:  # another disk, or one without hard links
        with beside(target) as partial:
            shutil.copyfile(source, partial)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk, as after `link`."""
    with suppress(OSError):  # not every system opens folders, nor every disk syncs them
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def held(folder: Path, on_busy: Callable[[], None] = lambda: None) -> Iterator[None]:
    """The folder, made where it is not there, as this process's own, for as long as the process lives at most.

    Where another process holds it, `on_busy` is called once, which may raise; then this one waits. Raises
    `OutputError` for a folder that cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            on_busy()
            lock.acquire(poll_interval=0.1)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def claimed(folder: Path, what: str) -> Iterator[None]:
    """The folder as this process's own, as by `held`; a second `what` that writes into it would spoil both. One that
    was made for it goes again where nothing came to lie there.

    Raises `OutputError` where another process has it.
    """
    made = not folder.exists()

    def busy() -> None:
        raise OutputError(f"{folder} is in use by another {what}: wait, or give another --output")

    with held(folder, busy):
        try:
            yield
        finally:
            if made and bare(folder):  # nobody waits for this lock: whoever meets it is refused
                with suppress(OSError):
                    _remove(folder)


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_all(path: Path) -> None:
    for folder, _, names in os.walk(path):
        for name in names:
            _sync(Path(folder) / name)
        sync_folder(Path(folder))
    if path.is_file():
        _sync(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:  # for reading: what was linked in may be write-protected
        os.fsync(file.fileno())
