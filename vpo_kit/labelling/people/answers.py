"""What people answered, in the set's store: each answer is on disk before the call that adds it returns.

Rows are only ever added. An undo is a row of its own that names the answer it takes back; the answer before that one
holds again. An answer sent twice with one key is kept once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from vpo_kit.errors import ConfigError
from vpo_kit.labelling.answers import PEOPLE, Store, StoredAnswer
from vpo_kit.labelling.older import opened
from vpo_kit.labelling.people.questions import People, Question

COMMENTS = "comments"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`choice` is +1, -1 or 0 as in the set: a swap of sides is already taken back."""

    key: str
    annotator: str
    question: Question
    choice: int
    swapped: bool
    seconds: float
    """The time since the segment was shown, without that in which its page was hidden."""


class Content(BaseModel):
    """A row's content: an answer, or with `undoes` an undo of the answer with that key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    annotator: str
    pair: str
    start: int
    end: int
    videos: str
    dimension: str = ""
    choice: Literal[-1, 0, 1] | None
    swapped: bool
    seconds: float
    undoes: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Content:
        if (self.choice is None) != (self.undoes is not None):
            raise ValueError("an answer has a choice, an undo has none")
        return self

    @property
    def question(self) -> Question:
        return Question(pair=self.pair, start=self.start, end=self.end, videos=self.videos, dimension=self.dimension)


class PeopleAnswers:
    """People's answers of one set. Several threads and several processes may use them at once."""

    def __init__(self, folder: Path, *, create: bool, say: Callable[[str], None] = lambda line: None) -> None:
        """Open the store of the set in `folder`, with `create` also make it.

        Raises `DataError` when it is missing or something else.
        """
        self._store: Store = opened(folder, create=create, say=say)

    def close(self) -> None:
        self._store.close()

    def settle(self, wanted: Mapping[str, object]) -> People:
        """The settings of these answers: `wanted` where nobody has answered yet, later those of the first answer.

        Raises `ConfigError` when `wanted` then says something else.
        """
        with self._store.writing():
            count = len(self.all())
            try:
                held = People.model_validate(self._store.noted(PEOPLE, "settings") or {})
            except ValidationError as error:
                raise self._store.damaged("its settings cannot be read") from error
            if not count:
                held = People.model_validate({**held.model_dump(), **wanted})
                self._store.note(PEOPLE, "settings", held.model_dump(mode="json"))
        for name, value in wanted.items():
            if getattr(held, name) != value:
                raise ConfigError(
                    f"{self._store.path} holds {count} answers given with {name}={getattr(held, name)}: leave {name} "
                    "out, or move that file away to begin anew"
                )
        return held

    def set_gold(self, gold: Mapping[Question, int]) -> None:
        """Replace the known answers."""
        rows = [[q.pair, q.start, q.end, q.videos, label, q.dimension] for q, label in gold.items()]
        self._store.note(PEOPLE, "gold", {"answers": rows})

    def gold(self) -> dict[Question, int]:
        held = self._store.noted(PEOPLE, "gold") or {"answers": []}
        try:
            return dict(_known(*row) for row in held["answers"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._store.damaged("its known answers cannot be read") from error

    def arrived(self, annotator: str) -> int:
        """The place of this annotator among all who have come, from 0 on; whoever is new is the last."""
        with self._store.writing():
            held = (self._store.noted(PEOPLE, "arrivals") or {}).get("names", [])
            if not isinstance(held, list):
                raise self._store.damaged("who has come cannot be read")
            if annotator not in held:
                held.append(annotator)
                self._store.note(PEOPLE, "arrivals", {"names": held})
            return held.index(annotator)

    def comment(self, key: str, annotator: str, pair: str, text: str) -> None:
        """Keep what somebody wrote about a pair. Raises `OutputError` when it is not on disk."""
        self._store.add(COMMENTS, key, {"annotator": annotator, "pair": pair, "text": text})

    def comments(self) -> list[tuple[str, str, str]]:
        """Annotator, pair and text of every comment, oldest first."""
        found = [row.content for row in self._store.rows(COMMENTS)]
        return [(str(one.get("annotator")), str(one.get("pair")), str(one.get("text"))) for one in found]

    def add(self, answer: Answer) -> None:
        """Commit an answer. Raises `OutputError` when it is not on disk."""
        self._store.add(PEOPLE, answer.key, _content(answer.annotator, answer, choice=answer.choice))

    def undo(self, key: str, annotator: str, known: Collection[Question]) -> Answer | None:
        """Take back the annotator's newest answer to one of the questions `known`; None when there is none left."""
        with self._store.writing():
            rows = self._read()
            if key in rows:
                undone = rows[key].undoes
                return _answer(undone, rows[undone]) if undone in rows else None
            mine = [answer for answer in self._holding(rows) if answer.annotator == annotator]
            last = next((answer for answer in reversed(mine) if answer.question in known), None)
            if last is not None:
                self._store.add(PEOPLE, key, _content(annotator, last, seconds=0.0, undoes=last.key))
            return last

    def all(self) -> list[Answer]:
        """Every answer that was not taken back, oldest first; a later one to the same question replaces an earlier."""
        return self._holding(self._read())

    def current(self) -> list[Answer]:
        """The answer that holds for each annotator and question."""
        return list({(answer.annotator, answer.question): answer for answer in self.all()}.values())

    def _holding(self, rows: Mapping[str, Content]) -> list[Answer]:
        taken = {row.undoes for row in rows.values()}
        return [_answer(key, row) for key, row in rows.items() if row.undoes is None and key not in taken]

    def _read(self) -> dict[str, Content]:
        return {row.key: self._content_of(row) for row in self._store.rows(PEOPLE)}

    def _content_of(self, row: StoredAnswer) -> Content:
        try:
            return Content.model_validate(row.content)
        except ValidationError as error:
            raise self._store.damaged("an answer has other fields") from error


def _known(
    pair: Any, start: Any, end: Any, videos: Any, label: Any, dimension: Any = ""
) -> tuple[Question, int]:  # a set of vpo 0.2.0 has no dimensions
    question = Question(pair=str(pair), start=int(start), end=int(end), videos=str(videos), dimension=str(dimension))
    return question, int(label)


def _content(annotator: str, of: Answer, **changes: Any) -> dict[str, Any]:
    q = of.question
    values = {"swapped": of.swapped, "seconds": of.seconds, "choice": None, **changes}
    place = {"annotator": annotator, **asdict(q)}
    return Content.model_validate({**place, **values}).model_dump(mode="json")


def _answer(key: str, row: Content) -> Answer:
    assert row.choice is not None
    return Answer(
        key=key,
        annotator=row.annotator,
        question=row.question,
        choice=row.choice,
        swapped=row.swapped,
        seconds=row.seconds,
    )
