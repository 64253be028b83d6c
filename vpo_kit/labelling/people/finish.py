"""The way from answers to labels, and how far the annotators can be trusted. Nothing of the set is written but its
labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

from vpo_kit.labelling.agreement import Agreement, agreement
from vpo_kit.labelling.people.answers import Answer, PeopleAnswers
from vpo_kit.labelling.people.questions import Question, Survey
from vpo_kit.pairing import store
from vpo_kit.pairing.origins import by_labeller
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.segments import vote

LABELLER = "people"
FEWEST_GOLD = 3


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a finish did. Without a pair that is answered throughout, the set stays as it is."""

    pairs: int
    labelled: int
    """Pairs with an answer to each of their segments: they got the labels."""
    partly: int
    """Pairs with an answer to some of their segments."""
    annotators: int
    stale: int
    """Answers about videos or segments that the set no longer has."""
    others: str = ""
    """Whose labels the other pairs have: ``83 by reward:vqa``."""
    failed: Sequence[str] = ()
    """Annotators whose answers do not count, by their answers to known questions."""


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """One person's answers; times in seconds, gold questions counted."""

    name: str
    answers: int
    median_seconds: float
    total_seconds: float
    ties: int
    first_shown: int
    """Decided answers for the video shown as A: about half of them, if the side does not matter to this person."""
    gold: int
    gold_right: int

    def fails(self, least: float) -> bool:
        """Whether too few known answers are right; nobody fails before having met `FEWEST_GOLD` of them."""
        return self.gold >= FEWEST_GOLD and self.gold_right < least * self.gold


def majority(choices: Iterable[int]) -> int:
    """The label that most annotators gave; a draw between the most frequent ones is a tie."""
    given = list(choices)
    counts = {label: given.count(label) for label in (1, 0, -1)}
    best = [label for label, count in counts.items() if count == max(counts.values())]
    return best[0] if len(best) == 1 else 0


def finish(path: Path, answers: PeopleAnswers, *, drop: bool = False, least_gold: float = 0.0) -> Finished:
    """Make the answers the labels of the set at `path`.

    A pair that is not answered throughout keeps the labels it has, with `drop` it has none then. The set stays as it
    is while no pair is answered throughout. People with less than `least_gold` of the known answers right do
    not count.
    Raises `DataError` for a set that cannot be read and `OutputError` for one that cannot be written; the old labels
    are in force then.
    """
    found = store.read(path)
    survey = Survey(found, answers.settle({}))
    failed = [one.name for one in annotators(answers, survey) if one.fails(least_gold)]
    current = [answer for answer in answers.current() if answer.annotator not in failed]
    votes: dict[Question, list[int]] = defaultdict(list)
    for answer in current:
        votes[answer.question].append(answer.choice)
    given = {name: [part in votes for part in parts] for name, parts in survey.questions.items()}
    done = {name for name, found_parts in given.items() if all(found_parts)}
    pairs = [_labelled(pair, survey, votes) if pair.id in done else _other(pair, drop) for pair in found.pairs]
    known = [answer for answer in current if answer.question in survey.known]
    outcome = Finished(
        pairs=len(pairs),
        labelled=len(done),
        partly=sum(map(any, given.values())) - len(done),
        stale=len(current) - len(known),
        annotators=len({answer.annotator for answer in known}),
        others=by_labeller(pair for pair in pairs if pair.id not in done),
        failed=failed,
    )
    if done:
        facts: dict[str, Any] = {"labeller": LABELLER, "annotators": outcome.annotators}
        settings = survey.settings.model_dump(mode="json")
        facts |= {"answers": len(known), "pairs": len(done), **settings}
        if not survey.settings.dimensions:
            del facts["dimensions"]
        before = found.facts.get("labels")
        if isinstance(before, Mapping) and before.get("labeller") == LABELLER:
            before = before.get("others")
        if before and any(pair.labeller not in (None, LABELLER) for pair in pairs):
            facts["others"] = before
        store.write(path, {**found.facts, "labels": facts}, pairs)
    return outcome


def _labelled(pair: Pair, survey: Survey, votes: Mapping[Question, Sequence[int]]) -> Pair:
    """The pair with people's labels."""
    if survey.settings.dimensions:
        return _judged(pair, survey, votes)
    labels = [majority(votes[question]) for question in survey.questions[pair.id]]
    segments = survey.pairs[pair.id].segments
    update = {"segments": segments, "labels": labels, "label": vote(labels), "labeller": LABELLER, "scores": None}
    return pair.model_copy(update={**update, "motion": pair.motion if segments == pair.segments else None})


def _judged(pair: Pair, survey: Survey, votes: Mapping[Question, Sequence[int]]) -> Pair:
    """The pair with people's verdict in each dimension, and the share of votes for its first member, a tie as half.
    Labels that it has stay, and whose they are.
    """
    given = {question.dimension: votes[question] for question in survey.questions[pair.id]}
    judged = {name: majority(choices) for name, choices in given.items()}
    shares = {name: round(0.5 + sum(choices) / (2 * len(choices)), 4) for name, choices in given.items()}
    labeller = LABELLER if pair.label is None else pair.labeller
    return pair.model_copy(update={"judged": judged, "shares": shares, "labeller": labeller})


def _other(pair: Pair, drop: bool) -> Pair:
    return pair.model_copy(update=dict.fromkeys(("labels", "label", "labeller", "scores"))) if drop else pair


def pairwise(answers: PeopleAnswers, survey: Survey) -> list[tuple[str, str, Agreement]]:
    """How each two annotators agree on the segments that both have answered."""
    given: dict[str, dict[Question, int]] = defaultdict(dict)
    for answer in answers.current():
        if answer.question in survey.known:
            given[answer.annotator][answer.question] = answer.choice
    return [(a, b, agreement(given[a], given[b])) for a, b in combinations(sorted(given), 2)]


def annotators(answers: PeopleAnswers, survey: Survey) -> list[Annotator]:
    """Everybody who answered something that the set still has, by name."""
    every, current, gold = answers.all(), answers.current(), answers.gold()
    found = []
    for name in sorted({answer.annotator for answer in current if answer.question in survey.known}):
        times = [answer.seconds for answer in every if answer.annotator == name]
        mine = {a.question: a for a in current if a.annotator == name and a.question in survey.known}
        checked = list(_checked({question: a.choice for question, a in mine.items()}, gold, survey))
        found.append(
            Annotator(
                name=name,
                answers=len(mine),
                median_seconds=median(times),
                total_seconds=sum(times),
                ties=sum(a.choice == 0 for a in mine.values()),
                first_shown=sum(map(_is_a, mine.values())),
                gold=len(checked),
                gold_right=sum(checked),
            )
        )
    return found


def _is_a(answer: Answer) -> bool:
    return answer.choice == (-1 if answer.swapped else 1)


def _checked(mine: Mapping[Question, int], gold: Mapping[Question, int], survey: Survey) -> Iterable[bool]:
    """Whether each gold question that one person has answered is answered right."""
    for question, label in gold.items():
        parts = survey.questions.get(question.pair, [])
        if question in mine:
            yield mine[question] == label
        elif parts and question == survey.clip(question.pair) and all(part in mine for part in parts):
            yield vote([mine[part] for part in parts]) == label
