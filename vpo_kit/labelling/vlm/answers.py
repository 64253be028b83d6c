"""A model's answers in the set's store: what was answered once is never asked again, also after a kill."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition

from pydantic import BaseModel, ConfigDict, ValidationError

from vpo_kit.labelling.answers import VLM, Store
from vpo_kit.labelling.vlm.protocol import Verdict


class Record(BaseModel):
    """An answer, with what it cost and, for a reader, what it was about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    """`protocol.key` of the question."""
    verdict: Verdict
    """The verdict in the order in which the clips were shown."""
    evidence: str
    pair: str
    segment: tuple[int, int]
    swapped: bool
    model: str
    """The name of the model by which the server says it was answered."""
    input_tokens: int
    output_tokens: int


class ModelAnswers:
    """What models have said of one set; shared by threads. Raises `DataError` for a damaged store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: set[str] = set()
        self._change = Condition()
        self._found: dict[str, Record] = {}
        for row in store.rows(VLM):
            try:
                self._found[row.key] = Record.model_validate({**row.content, "key": row.key})
            except ValidationError as error:
                raise store.damaged("a model's answer has other fields") from error

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
                self._store.add(VLM, key, record.model_dump(mode="json", exclude={"key"}))
                self._found[key] = record
            return record
        finally:
            with self._change:
                self._asked.discard(key)
                self._change.notify_all()
