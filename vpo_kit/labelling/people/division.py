"""Who is asked about what, where each pair is to be seen by so many people and no more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from vpo_kit.labelling.people.answers import Answer
from vpo_kit.labelling.people.questions import Survey


class Division:
    """The pairs of a survey divided among people: each pair to `overlap` of them, those with known answers to all.

    People come in teams of `overlap` that go through the pairs side by side, so that agreement can be told early; each
    team begins in the middle of the largest stretch that no earlier team began in.
    """

    def __init__(self, survey: Survey, overlap: int, known: Collection[str] = ()) -> None:
        """`known` are the pairs with known answers."""
        self._survey = survey
        self._overlap = overlap
        self._known = frozenset(known)

    def order(self, arrival: int) -> list[str]:
        """The pairs as they come to the person who arrived as number `arrival`, from 0 on."""
        pairs = list(self._survey.pairs)
        start = int(len(pairs) * halving(arrival // self._overlap))
        return pairs[start:] + pairs[:start]

    def closed(self, annotator: str, current: Iterable[Answer]) -> set[str]:
        """The pairs that enough others have answered throughout and this person has not begun."""
        given: dict[str, dict[str, set[object]]] = defaultdict(lambda: defaultdict(set))
        for answer in current:
            if answer.question in self._survey.known:
                given[answer.question.pair][answer.annotator].add(answer.question)
        return {name for name, people in given.items() if self._enough(name, annotator, people)}

    def _enough(self, name: str, annotator: str, people: Mapping[str, Collection[object]]) -> bool:
        if name in self._known or annotator in people:
            return False
        wanted = len(self._survey.questions[name])
        return sum(len(answered) == wanted for answered in people.values()) >= self._overlap


def halving(number: int) -> float:
    """The van der Corput sequence, 0, 1/2, 1/4, 3/4, 1/8, ...: each new point lies in the largest gap, in [0, 1)."""
    found, weight = 0.0, 0.5
    while number:
        found += weight * (number & 1)
        number, weight = number >> 1, weight / 2
    return found
