"""What people answered, in one SQLite file: each answer is on disk before the call that adds it returns.

Rows are only ever added. An undo is a row of its own that names the answer it takes back; the answer before that one
holds again. An answer sent twice with one key is kept once.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vpo_kit.errors import ConfigError, DataError, OutputError
from vpo_kit.labelling.people.questions import People, Question

APPLICATION = 0x76706F31  # "vpo1": the file's kind and version
LOCK_SECONDS = 3.0
SCHEMA = """
CREATE TABLE settings (json TEXT NOT NULL);
CREATE TABLE gold (
    pair TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL, videos TEXT NOT NULL,
    label INTEGER NOT NULL CHECK (label IN (-1, 0, 1)), UNIQUE (pair, start, stop, videos)
);
CREATE TABLE answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    annotator TEXT NOT NULL,
    pair TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL, videos TEXT NOT NULL,
    choice INTEGER CHECK (choice IN (-1, 0, 1)),
    swapped INTEGER NOT NULL CHECK (swapped IN (0, 1)),
    seconds REAL NOT NULL,
    given TEXT NOT NULL,
    undoes INTEGER UNIQUE REFERENCES answers (number),
    CHECK ((choice IS NULL) = (undoes IS NOT NULL))
);
"""
COLUMNS = "key, annotator, pair, start, stop, videos, choice, swapped, seconds"
HOLDS = "undoes IS NULL AND number NOT IN (SELECT undoes FROM answers WHERE undoes IS NOT NULL)"


@dataclass(frozen=True)
class Answer:
    """`choice` is +1, -1 or 0 as in the set: a swap of sides is already taken back."""

    key: str
    annotator: str
    question: Question
    choice: int
    swapped: bool
    seconds: float
    """From when the segment was shown, without the time in which its page was hidden."""


class Answers:
    """The file of one set. Several threads and several processes may use it at once."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Open it, with `create` also make it. Raises `DataError` when it is missing or something else."""
        if not create and not path.is_file():
            raise DataError(f"{path} is missing: nobody has answered, vpo label SET --with people asks")
        self._path = path
        self._turn = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, LOCK_SECONDS, check_same_thread=False, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"cannot open {path}: {getattr(error, 'strerror', None) or error}") from error
        try:
            with self._explained():  # the plain journal leaves one file to copy; EXTRA also syncs its folder
                self._file.execute("PRAGMA synchronous = EXTRA")
            with self._writing():
                self._prepare()
        except BaseException:
            self._file.close()
            raise

    def _prepare(self) -> None:
        (kind,) = self._file.execute("PRAGMA application_id").fetchone()
        (tables,) = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and kind != APPLICATION:
            raise DataError(f"{self._path} holds something else than answers of this version")
        if not tables:
            for statement in SCHEMA.split(";\n"):
                self._file.execute(statement)
            self._file.execute(f"PRAGMA application_id = {APPLICATION}")

    def close(self) -> None:
        self._file.close()

    def settle(self, wanted: Mapping[str, object]) -> People:
        """The settings of this file: `wanted` where nobody has answered yet, later those of the first answer.

        Raises `ConfigError` when `wanted` then says something else.
        """
        with self._writing() as run:
            row = run("SELECT json FROM settings").fetchone()
            (count,) = run(f"SELECT count(*) FROM answers WHERE {HOLDS}").fetchone()
            try:
                held = People.model_validate_json(row[0]) if row else People()
            except ValidationError as error:
                raise DataError(f"{self._path}: its settings cannot be read") from error
            if not count:
                held = People.model_validate({**held.model_dump(), **wanted})
                run("DELETE FROM settings")
                run("INSERT INTO settings VALUES (?)", (held.model_dump_json(),))
        for name, value in wanted.items():
            if getattr(held, name) != value:
                raise ConfigError(
                    f"{self._path} holds {count} answers given with {name}={getattr(held, name)}: leave {name} out, "
                    "or move that file away to begin anew"
                )
        return held

    def set_gold(self, gold: Mapping[Question, int]) -> None:
        """Replace the known answers."""
        with self._writing() as run:
            run("DELETE FROM gold")
            for q, label in gold.items():
                run("INSERT INTO gold VALUES (?, ?, ?, ?, ?)", (q.pair, q.start, q.end, q.videos, label))

    def gold(self) -> dict[Question, int]:
        rows = self._rows("SELECT pair, start, stop, videos, label FROM gold")
        return {Question(*row[:4]): row[4] for row in rows}

    def add(self, answer: Answer) -> None:
        """Commit an answer. Raises `OutputError` when it is not on disk."""
        q = answer.question
        values = (answer.key, answer.annotator, q.pair, q.start, q.end, q.videos, answer.choice, answer.swapped)
        with self._writing() as run:
            run(
                f"INSERT INTO answers ({COLUMNS}, given) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (key) DO NOTHING",
                (*values, answer.seconds, _now()),
            )

    def undo(self, key: str, annotator: str, known: Collection[Question]) -> Answer | None:
        """Take back the annotator's newest answer to one of the questions `known`; None when there is none left."""
        with self._writing() as run:
            done = run("SELECT undoes FROM answers WHERE key = ?", (key,)).fetchone()
            if done is not None:
                row = run(f"SELECT {COLUMNS} FROM answers WHERE number = ?", (done[0],)).fetchone()
                return _answer(row) if row else None
            wanted = f"SELECT number, {COLUMNS} FROM answers WHERE annotator = ? AND {HOLDS} ORDER BY number DESC"
            for number, *row in run(wanted, (annotator,)):
                last = _answer(row)
                if last.question in known:
                    run(
                        f"INSERT INTO answers ({COLUMNS}, given, undoes) VALUES (?, ?, ?, ?, ?, ?, NULL, ?, 0, ?, ?)",
                        (key, annotator, *row[2:6], last.swapped, _now(), number),
                    )
                    return last
            return None

    def all(self) -> list[Answer]:
        """Every answer that was not taken back, oldest first; a later one to the same question replaces an earlier."""
        return [_answer(row) for row in self._rows(f"SELECT {COLUMNS} FROM answers WHERE {HOLDS} ORDER BY number")]

    def current(self) -> list[Answer]:
        """The answer that holds for each annotator and question."""
        return list({(answer.annotator, answer.question): answer for answer in self.all()}.values())

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self._turn, self._explained():
            return self._file.execute(statement).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """One transaction, all of it on disk when the block ends, nothing of it after an error."""
        with self._turn, self._explained():
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield self._file.execute
                self._file.execute("COMMIT")
            except BaseException:
                if self._file.in_transaction:
                    self._file.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OutputError(f"cannot write {self._path}: {error}") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the second of damaged names
            raise DataError(f"{self._path} is damaged or no file of answers: {error}") from error


def _answer(row: Sequence[Any]) -> Answer:
    key, annotator, pair, start, stop, videos, choice, swapped, seconds = row
    return Answer(key, annotator, Question(pair, start, stop, videos), choice, bool(swapped), seconds)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
