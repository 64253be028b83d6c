"""All answers about a set, whoever gave them, in one SQLite file: ``SET/.answers/answers.sqlite``.

An answer is a row of a kind (`PEOPLE`, `VLM`, `SCORES`, or a labeller's own), with a key by which it is known and
whatever it says as JSON. It is on disk when the call that adds it returns; one that is added twice is kept once.
Files of older versions are taken over by `vpo_kit.labelling.older.opened`, through which a store is opened.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vpo_kit import files
from vpo_kit.errors import DataError, OutputError

FOLDER, FILE = ".answers", "answers.sqlite"
PEOPLE, VLM, SCORES = "people", "vlm", "scores"
APPLICATION = 0x76706F32  # "vpo2": the file's kind and version
WAIT_S = 3.0
"""Seconds to wait for another process's turn, before an answer counts as not written."""
SCHEMA = """
CREATE TABLE answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, key TEXT NOT NULL, content TEXT NOT NULL, given TEXT NOT NULL,
    UNIQUE (kind, key)
);
CREATE TABLE facts (kind TEXT NOT NULL, name TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (kind, name));
"""


@contextmanager
def labelling(folder: Path) -> Iterator[None]:
    """The set in `folder` as this process's own to label. Raises `OutputError` where another one is at it.

    People's answers come in all the same: their page asks for nothing but the store.
    """

    def busy() -> None:
        raise OutputError(f"{folder} is being labelled by another process: wait until it ends, or stop it")

    with files.held(folder / FOLDER, busy):
        yield


@dataclass(frozen=True)
class StoredAnswer:
    """One answer as it was given."""

    key: str
    content: dict[str, Any]


class Store:
    """The answers of the set in `folder`. Several threads and several processes may use it at once."""

    def __init__(self, folder: Path, *, create: bool = True, wait_s: float = WAIT_S) -> None:
        """Open it, with `create` also make it.

        Raises `DataError` where it is missing or something else, `OutputError` where it cannot be used.
        """
        self.folder = folder
        self.path = folder / FOLDER / FILE
        if not create and not self.path.is_file():
            raise DataError(f"{self.path} is missing: nobody has answered, vpo label SET --with people asks")
        self._turn = threading.RLock()
        self._within = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(self.path, wait_s, check_same_thread=False, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"cannot use {self.path}: {getattr(error, 'strerror', None) or error}") from error
        try:
            # the plain journal leaves one file to copy, and works where a write-ahead log does not: on network disks
            self._run("PRAGMA synchronous = EXTRA")  # also syncs the folder
            with self.writing():
                self._prepare()
        except BaseException:
            self._file.close()
            raise

    def _prepare(self) -> None:
        ((kind,),) = self._run("PRAGMA application_id")
        ((tables,),) = self._run("SELECT count(*) FROM sqlite_master")
        if tables and kind != APPLICATION:
            raise DataError(f"{self.path} holds something else than answers of this version")
        if not tables:
            for statement in SCHEMA.split(";\n"):
                self._run(statement)
            self._run(f"PRAGMA application_id = {APPLICATION}")

    def close(self) -> None:
        self._file.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction for all that is called in the block: on disk when it ends, undone after an error.

        A block within a block is a part of the outer one.
        """
        with self._turn:
            if self._within:
                yield
                return
            self._run("BEGIN IMMEDIATE")
            self._within = True
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                if self._file.in_transaction:
                    self._run("ROLLBACK")
                raise
            finally:
                self._within = False

    def add(self, kind: str, key: str, content: dict[str, Any], given: str | None = None) -> bool:
        """Keep an answer; whether it is a new one. Raises `OutputError` when it is not on disk."""
        values = (kind, key, json.dumps(content), given or datetime.now(UTC).isoformat(timespec="milliseconds"))
        statement = "INSERT INTO answers (kind, key, content, given) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        return bool(self._run(f"{statement} RETURNING number", values))

    def rows(self, kind: str) -> list[StoredAnswer]:
        """All answers of a kind, oldest first."""
        found = self._run("SELECT key, content FROM answers WHERE kind = ? ORDER BY number", (kind,))
        return [StoredAnswer(key, self._object(content)) for key, content in found]

    def forget(self, kind: str) -> None:
        """Delete the answers of a kind, and what was noted beside them."""
        with self.writing():
            for table in ("answers", "facts"):
                self._run(f"DELETE FROM {table} WHERE kind = ?", (kind,))

    def note(self, kind: str, name: str, value: dict[str, Any]) -> None:
        """Keep a fact beside the answers of a kind, in place of what it was."""
        self._run("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (kind, name, json.dumps(value)))

    def noted(self, kind: str, name: str) -> dict[str, Any] | None:
        """A fact; None where it was never noted."""
        found = self._run("SELECT content FROM facts WHERE kind = ? AND name = ?", (kind, name))
        return self._object(found[0][0]) if found else None

    def damaged(self, why: object) -> DataError:
        """The error for a file whose content is none of ours."""
        return DataError(f"{self.path} is damaged or no file of answers: {why}")

    def _object(self, text: Any) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise self.damaged("an answer is no JSON") from error
        if not isinstance(found, dict):
            raise self.damaged("an answer is no object")
        return found

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._turn:
                return self._file.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            raise OutputError(f"cannot write {self.path}: {error}") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the second of damaged names
            raise self.damaged(error) from error
