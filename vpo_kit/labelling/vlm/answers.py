"""A model's answers on disk, one line each: what was answered once is never asked again, also after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Condition

from pydantic import BaseModel, ConfigDict, ValidationError

from vpo_kit import files
from vpo_kit.errors import OutputError
from vpo_kit.labelling.vlm.protocol import Verdict


class Record(BaseModel):
    """An answer, with what it cost and, for a reader, what it was about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    """`protocol.key` of the question."""
    verdict: Verdict
    """In the order in which the clips were shown."""
    evidence: str
    pair: str
    segment: tuple[int, int]
    swapped: bool
    model: str
    """By which the server says it was answered."""
    input_tokens: int
    output_tokens: int


class Answers:
    """The answers of one set, in ``SET/.cache/vlm.jsonl``; shared by threads.

    A line that a kill cut short is passed over, and its question asked again. Raises `OutputError` when the file can
    be neither read nor made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Record] = {}
        self._asked: set[str] = set()
        self._change = Condition()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_bytes() if path.is_file() else b""
        except OSError as error:
            raise OutputError(f"cannot use {path}: {error.strerror or error}") from error
        for line in lines.splitlines():
            try:
                record = Record.model_validate_json(line)
            except ValidationError:
                continue
            self._found[record.key] = record

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def get(self, key: str, ask: Callable[[], Record]) -> Record:
        """The answer, asked for when it is not there; it is on disk before this returns.

        Two threads with one question do not both ask: the second waits for the first one's answer.
        """
        with self._change:
            self._change.wait_for(lambda: key not in self._asked)
            if key in self._found:
                return self._found[key]
            self._asked.add(key)
        try:
            record = ask()
            with self._change:
                files.append(self._path, record.model_dump_json())
                self._found[key] = record
            return record
        finally:
            with self._change:
                self._asked.discard(key)
                self._change.notify_all()
