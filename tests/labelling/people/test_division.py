"""Each pair to so many people and no more: nothing is left out, nobody waits, and people overlap early."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from vpo_kit.labelling.people.answers import Answer
from vpo_kit.labelling.people.division import Division, halving
from vpo_kit.labelling.people.questions import People, Survey
from vpo_kit.pairing.store import PairSet
from vpo_kit.testing.pairs import pair_row

PAIRS = 24


def survey() -> Survey:
    pairs = [pair_row(f"{i:06d}", frames=8, segments=[(0, 8)]) for i in range(PAIRS)]
    return Survey(PairSet(Path("set"), {}, pairs, []), People(segment_seconds=1))


def test_the_starts_halve_what_is_left() -> None:
    assert [halving(i) for i in range(6)] == [0, 0.5, 0.25, 0.75, 0.125, 0.625]


def test_five_people_answer_each_pair_twice() -> None:
    """They take turns; known pairs go to everybody, whoever has begun a pair may end it."""
    found, keys = survey(), count()
    known = next(iter(found.pairs))
    division, answers = Division(found, 2, [known]), []
    people = ["ann", "bob", "cem", "dora", "eve"]
    for _ in range(PAIRS):
        for place, name in enumerate(people):
            mine = {one.question.pair for one in answers if one.annotator == name}
            closed = division.closed(name, answers) | mine
            for pair in [pair for pair in division.order(place) if pair not in closed][:1]:
                answers.append(
                    Answer(
                        key=str(next(keys)),
                        annotator=name,
                        question=found.questions[pair][0],
                        choice=1,
                        swapped=False,
                        seconds=1.0,
                    )
                )
        if len(answers) == 10:
            early = [one.question.pair for one in answers]
            assert len(set(early)) < len(early)  # agreement can be told already
    given = [one.question.pair for one in answers]
    assert {pair: given.count(pair) for pair in found.pairs} == {
        pair: 5 if pair == known else 2 for pair in found.pairs
    }


def test_begun_pairs_stay_open() -> None:
    found = Survey(PairSet(Path("set"), {}, [pair_row("000000")], []), People(segment_seconds=0.25))
    parts = found.questions["000000"]

    def said(name: str, until: int) -> list[Answer]:
        return [
            Answer(key=f"{name}{i}", annotator=name, question=part, choice=0, swapped=False, seconds=1.0)
            for i, part in enumerate(parts[:until])
        ]

    division = Division(found, 1)
    assert division.closed("bob", said("ann", 4)) == {"000000"}
    assert division.closed("bob", said("ann", 3)) == set()  # not answered throughout
    assert division.closed("bob", [*said("ann", 4), *said("bob", 1)]) == set()
