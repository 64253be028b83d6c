"""What a panel of raters said, dimension by dimension, and which of the raters seem to guess. Pure but for reading."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from vpo_kit.evaluation.statistics import wilson
from vpo_kit.labelling.agreement import alpha
from vpo_kit.labelling.people.answers import Answer
from vpo_kit.pairing.records import Pair
from vpo_kit.study import sizes
from vpo_kit.study.sizes import Noise
from vpo_kit.study.strengths import RowStrength, Verdict, strengths

FEWEST = 20
"""Questions that a rater must share with others before being called one who guesses."""


@dataclass(frozen=True, kw_only=True)
class Rater:
    """One person beside the others: on how many questions both this one and the majority of the others decided, and
    how often for the same.
    """

    name: str
    answers: int
    shared: int
    agreeing: int
    guesses: bool = False
    """Agrees no better than a coin, and less than the others among themselves."""


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """What the panel says in one dimension."""

    name: str
    rows: Mapping[str, RowStrength]
    """Every row but the base, by name."""
    direct: Mapping[str, tuple[float, int]]
    """The share of wins over the base, ties as half, where the two were shown together, and of how many verdicts."""
    alpha: float | None
    ties: float
    verdicts: int
    needed: Mapping[float, int | None]
    """Raters for each pair that find this difference of a win rate from one half; None where no number of them does."""
    least: float
    """The smallest such difference that this study finds, four times out of five."""


def dimension(name: str, answers: Sequence[Answer], pairs: Mapping[str, Pair], names: Sequence[str]) -> Dimension:
    """All answers of one dimension; `names` are the rows, the base first. Raises `ValueError` without an answer."""
    said = [verdict(answer, pairs[answer.question.pair], names) for answer in answers]
    found = strengths(said, len(names))
    agreed = alpha((answer.question, answer.choice) for answer in answers)
    ties = sum(one.choice == 0 for one in said) / len(said)
    # a share of all or none is no more than few verdicts can tell
    noise = Noise((ties * len(said) + 0.5) / (len(said) + 2), sizes.PLANNED.alpha if agreed is None else agreed)
    seen = len({answer.question for answer in answers})
    strength = sizes.effective(seen, len(names))
    return Dimension(
        name=name,
        rows=dict(zip(names[1:], found[1:], strict=True)),
        direct={row: _direct(said, place) for place, row in enumerate(names) if place},
        alpha=agreed,
        ties=ties,
        verdicts=len(said),
        needed={difference: sizes.raters(difference, strength, noise) for difference in (0.05, 0.1, 0.15)},
        least=sizes.least(strength, len(said) / seen, noise),
    )


def verdict(answer: Answer, pair: Pair, names: Sequence[str]) -> Verdict:
    """An answer about the rows whose videos it compares."""
    assert pair.models is not None
    first, second = (list(names).index(model) for model in pair.models)
    return Verdict(first, second, answer.choice, pair.prompt, answer.annotator)


def _direct(said: Sequence[Verdict], row: int) -> tuple[float, int]:
    won = [one.choice if one.first == row else -one.choice for one in said if {one.first, one.second} == {0, row}]
    return (sum(won) / (2 * len(won)) + 0.5 if won else 0.5), len(won)


def raters(answers: Collection[Answer]) -> list[Rater]:
    """Everybody beside the majority of the others, by name; who guesses can be told only where people overlap."""
    votes: dict[Hashable, dict[str, int]] = defaultdict(dict)
    for answer in answers:
        votes[answer.question][answer.annotator] = answer.choice
    found = [_rater(name, votes) for name in sorted({answer.annotator for answer in answers})]
    shares = {one.name: one.agreeing / one.shared for one in found if one.shared >= FEWEST}
    return [_marked(one, [share for name, share in shares.items() if name != one.name]) for one in found]


def _rater(name: str, votes: Mapping[Hashable, Mapping[str, int]]) -> Rater:
    mine = {question: given[name] for question, given in votes.items() if name in given}
    rest = {question: sum(votes[question].values()) - choice for question, choice in mine.items()}
    shared = [question for question in mine if mine[question] and rest[question]]
    agreeing = sum(mine[question] * rest[question] > 0 for question in shared)
    return Rater(name=name, answers=len(mine), shared=len(shared), agreeing=agreeing)


def _marked(one: Rater, others: Sequence[float]) -> Rater:
    if one.shared < FEWEST or not others:
        return one
    low, high = wilson(one.agreeing / one.shared, one.shared)
    return Rater(
        name=one.name,
        answers=one.answers,
        shared=one.shared,
        agreeing=one.agreeing,
        guesses=low <= 0.5 and high < median(others),
    )
