"""A panel of known strengths with one who guesses: the strengths are found, and so is the guesser."""

from __future__ import annotations

import math
import random
from itertools import count

import pytest

from vpo_kit.labelling.people.answers import Answer
from vpo_kit.labelling.people.questions import Question
from vpo_kit.pairing.records import Pair
from vpo_kit.study import panel
from vpo_kit.study.design import drawn
from vpo_kit.testing.pairs import pair_row

NAMES = ["base", "dense", "online", "sft"]
TRUTH = [0.0, 1.2, 0.5, -0.7]
PEOPLE = ["ann", "bob", "cem", "dora", "eve"]


def said(seed: int, guesser: str | None = "eve") -> tuple[dict[str, Pair], list[Answer]]:
    """Everybody on every pair: the videos of a pair have a difference of their own, which all but the guesser see."""
    draw, keys = random.Random(seed), count()
    pairs, answers = {}, []
    for number, (item, (first, second)) in enumerate(drawn(40, 4, seed)):
        name = f"{number:06d}"
        pairs[name] = pair_row(name, prompt=f"prompt {item}", models=(NAMES[first], NAMES[second]))
        question = Question(pair=name, start=0, end=8, videos=name, dimension="quality")
        # logistic noise splits into what the pair has and what the rater adds; their sum's scale is what fit measures
        leaning = TRUTH[first] - TRUTH[second] + draw.gauss(0, 1)
        for person in PEOPLE:
            seen = draw.gauss(0, 3) if person == guesser else leaning + draw.gauss(0, 1)
            choice = 0 if abs(seen) < 0.4 else 1 if seen > 0 else -1
            answers.append(
                Answer(
                    key=str(next(keys)), annotator=person, question=question, choice=choice, swapped=False, seconds=2.0
                )
            )
    return pairs, answers


def expected(difference: float) -> float:
    """The share of wins, ties as half, under the noise of `said`."""

    def above(bound: float) -> float:
        return 0.5 * math.erfc((bound - difference) / math.sqrt(2) / math.sqrt(2))

    return above(0.4) + (above(-0.4) - above(0.4)) / 2


def test_the_panel_is_recovered_and_the_guesser_seen() -> None:
    pairs, answers = said(0)
    found = panel.raters(answers)
    assert [one.name for one in found if one.guesses] == ["eve"]
    assert all(one.answers == 240 for one in found)
    kept = [answer for answer in answers if answer.annotator != "eve"]
    result = panel.dimension("quality", kept, pairs, NAMES)
    for name, truth in zip(NAMES[1:], TRUTH[1:], strict=True):
        row = result.rows[name]
        assert row.win_low <= expected(truth) <= row.win_high, name
        share, count = result.direct[name]
        assert count == 4 * 40
        assert share == pytest.approx(row.win_rate, abs=0.12)
    assert result.rows["dense"].significant
    assert result.alpha is not None
    both = panel.dimension("quality", answers, pairs, NAMES).alpha
    assert both is not None
    assert both < result.alpha  # whoever guesses agrees with nobody
    assert 0.02 < result.least < 0.15
    assert result.needed[0.05] is None or result.needed[0.05] >= (result.needed[0.15] or 1)


def test_nobody_is_called_a_guesser_without_one() -> None:
    for seed in range(1, 6):
        assert not [one.name for one in panel.raters(said(seed, guesser=None)[1]) if one.guesses]


def test_one_person_alone_cannot_be_told() -> None:
    pairs, answers = said(0)
    alone = [answer for answer in answers if answer.annotator == "ann"]
    (only,) = panel.raters(alone)
    assert (only.shared, only.guesses) == (0, False)
    assert panel.dimension("quality", alone, pairs, NAMES).alpha is None
