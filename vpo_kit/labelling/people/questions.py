"""What people are asked: which pairs in which order, which member on which side, and which answers are known.

A question is one segment of one pair, or in a study one dimension of the whole pair. The order of pairs is the same for
everybody, so that people who stop early have answered the same ones; which member is shown as A is drawn anew for each
annotator and pair.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from vpo_kit import plain
from vpo_kit.config import Section
from vpo_kit.errors import DataError
from vpo_kit.labelling.base import all_read, recut
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.segments import Range
from vpo_kit.pairing.settings import Cutting
from vpo_kit.pairing.store import PairSet
from vpo_kit.sampler import derive_seed


def plain_name(name: str) -> str:
    """An annotator's name without what people type differently from day to day: case and spaces."""
    plain = " ".join(unicodedata.normalize("NFC", name.casefold()).split())
    if not 0 < len(plain) <= 60 or not plain.isprintable():
        raise ValueError("a name has 1 to 60 letters")
    return plain


class People(Cutting):
    """How people label a set; fixed once the first of them has answered."""

    seed: int = Field(0, ge=0, description="of the order of pairs, and of the sides")
    dimensions: list[str] = Field([], description="asked of whole clips (quality, motion, text) instead of segments")


class PeopleLabelling(People):
    """Everything that ``--set`` takes; what is not in `People` may differ each time."""

    unanswered: Literal["keep", "drop"] = Field(
        "keep", description="a pair that is not answered in all segments: keep the labels it has, or have none"
    )
    gold: Path | None = Field(None, exclude=True, description="JSON lines of id, segment, label: known answers")
    least_gold: float = Field(
        0.0, ge=0, le=1, description="people with a smaller share of known answers right do not count in the labels"
    )
    overlap: int | None = Field(None, ge=1, exclude=True, description="people for each pair; default: all who come")
    instructions: Path | None = Field(None, exclude=True, description="a text shown on the page in place of our own")
    host: str = Field("127.0.0.1", exclude=True, description="address of the page; traffic is not encrypted")
    port: int = Field(8001, ge=0, le=65535, exclude=True, description="0 takes a free one")
    finish: bool = Field(False, exclude=True, description="write the labels, ask nobody")


class Known(Section):
    """One line of a gold file: the right label of a segment or dimension, or without either of the whole clip."""

    id: str
    segment: int | None = Field(None, ge=0, description="counted from 0")
    dimension: str | None = Field(None, description="of a study")
    label: Literal[-1, 0, 1]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A range of frames of a pair's two videos. Another video under an old id is another question."""

    pair: str
    start: int
    end: int
    videos: str
    """A hash of both videos' SHA-256."""
    dimension: str = ""
    """What is asked of the two videos, in a study; empty where it is which one is better."""


class Survey:
    """The pairs of a set as people see them, in the order in which they see them."""

    def __init__(self, found: PairSet, settings: People, gold: Iterable[Question] = ()) -> None:
        """`gold` are the questions whose answer is known. Raises `DataError` for a set that cannot be written anew."""
        all_read(found)
        twice = [name for name, count in Counter(pair.id for pair in found.pairs).items() if count > 1]
        if twice:
            raise DataError(f"{found.path}: several pairs have the id {twice[0]}: vpo pair check names them all")
        self.path = found.path
        self.settings = settings
        pairs = [recut(pair, settings.segment_seconds) for pair in found.pairs]
        if not settings.dimensions:  # a study has drawn its order, in which every part is balanced
            pairs = sorted(pairs, key=lambda pair: derive_seed(settings.seed, "order", pair.id))
        pairs = _spread(pairs, gold)
        self.pairs = {pair.id: pair for pair in pairs}
        self.questions = {pair.id: self._asked_of(pair) for pair in pairs}
        self.known = {question for parts in self.questions.values() for question in parts}

    def _asked_of(self, pair: Pair) -> list[Question]:
        if self.settings.dimensions:
            return [_question(pair, 0, pair.frames, name) for name in self.settings.dimensions]
        return [_question(pair, *part) for part in pair.segments]

    def shown(self, pair: str) -> list[Range]:
        """The range of frames that each question of a pair is about, as the page shows it."""
        found = self.pairs[pair]
        whole: Range = (0, found.shown[-1][1])
        return [whole] * len(self.settings.dimensions) if self.settings.dimensions else found.shown

    def swapped(self, annotator: str, pair: str) -> bool:
        """Whether this annotator sees the second member of a pair as A."""
        return bool(derive_seed(self.settings.seed, "side", annotator, pair) & 1)

    def clip(self, pair: str) -> Question:
        """The whole clip, about which nobody is asked but a gold file may know."""
        return _question(self.pairs[pair], 0, self.pairs[pair].frames)


def read_gold(path: Path, survey: Survey) -> dict[Question, int]:
    """Known answers from JSON lines (`Known`). Raises `DataError` that names the line."""
    try:
        lines = plain.lines(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--gold {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    gold: dict[Question, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            known = Known.model_validate_json(line)
            question = _asked(known, survey)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "JSON"
            raise DataError(f"{path}, line {number}: {where}: {first['msg']}") from error
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        if question in gold:
            raise DataError(f"{path}, line {number}: pair {known.id} is there before with the same segment")
        gold[question] = known.label
    if not gold:
        raise DataError(f'{path} holds no gold question: one is {{"id": "000000", "segment": 0, "label": 1}}')
    return gold


def _asked(known: Known, survey: Survey) -> Question:
    if known.id not in survey.pairs:
        raise ValueError(f"the set has no pair {known.id!r}")
    parts = survey.questions[known.id]
    if survey.settings.dimensions or known.dimension is not None:
        named = {part.dimension: part for part in parts}
        if known.segment is not None or known.dimension not in named:
            raise ValueError(f"dimension must be one of {', '.join(survey.settings.dimensions) or 'none'}, no segment")
        return named[known.dimension]
    if known.segment is None:
        return survey.clip(known.id)
    if known.segment >= len(parts):
        raise ValueError(f"pair {known.id} has segments 0 to {len(parts) - 1}, not {known.segment}")
    return parts[known.segment]


def _question(pair: Pair, start: int, end: int, dimension: str = "") -> Question:
    videos = hashlib.sha256(f"{pair.sha256.first}/{pair.sha256.second}".encode()).hexdigest()
    return Question(pair=pair.id, start=start, end=end, videos=videos[:16], dimension=dimension)


def _spread(drawn: Sequence[Pair], gold: Iterable[Question]) -> list[Pair]:
    """The pairs in their order, but those with known answers evenly among the others."""
    known = {question.pair for question in gold}
    places = []
    for group in ([p for p in drawn if p.id in known], [p for p in drawn if p.id not in known]):
        places += [((i + 0.5) / len(group), pair) for i, pair in enumerate(group)]
    return [pair for _, pair in sorted(places, key=lambda place: place[0])]
