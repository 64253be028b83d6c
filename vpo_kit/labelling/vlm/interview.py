"""Labels of a set by a vision-language model: every question once, in both orders, then fold and vote.

What is finished lies in the set's store, so a labelling that was stopped goes on where it was; the set's own labels
change at the end, all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

from vpo_kit.errors import DataError
from vpo_kit.labelling.answers import Store
from vpo_kit.labelling.base import all_read, recut
from vpo_kit.labelling.vlm import forms, pictures, price, protocol
from vpo_kit.labelling.vlm.answers import ModelAnswers, Record
from vpo_kit.labelling.vlm.chat import Chat, NoAnswer
from vpo_kit.labelling.vlm.limits import CostLimit, Spent
from vpo_kit.labelling.vlm.pictures import PairPictures
from vpo_kit.labelling.vlm.price import CostEstimate
from vpo_kit.labelling.vlm.settings import VlmLabelling
from vpo_kit.labelling.vlm.tally import Tally, tally
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Motion, Pair
from vpo_kit.pairing.segments import vote
from vpo_kit.pairing.store import PairSet


@dataclass(frozen=True)
class Judged:
    """One pair's answers, segment by segment in both orders, or why there are none."""

    answers: list[tuple[Record, Record]]
    motion: Motion | None = None
    failed: str | None = None
    unanswered: bool = False
    """How many questions failed by the server, not by the pair's own files."""


@dataclass(frozen=True)
class Asked:
    """One segment of a pair in one order; `key` names its answer."""

    pair: Pair
    index: int
    swapped: bool
    key: str


@dataclass(frozen=True)
class Labelled:
    """The set with its new labels, and what is known about the one who gave them."""

    found: PairSet
    tally: Tally
    failed: dict[str, str]
    """The reason of each failure, by pair."""


class Interview:
    """All questions about one set to one model, whose answers are `kept`.

    Raises `DataError` for a set without pairs or with a line that is none, and `ConfigError` for a preset without its
    question.
    """

    def __init__(self, found: PairSet, model: str, settings: VlmLabelling, kept: Store) -> None:
        all_read(found)
        if not found.pairs:
            raise DataError(f"{found.path} holds no pairs")
        self._found = found
        self._model = model
        self._all = settings
        self._settings = settings.vlm
        self._form = forms.of(settings.vlm)
        self._pairs = [_recut(pair, settings.segment_seconds) for pair in found.pairs]
        self._answers = ModelAnswers(kept)
        self._decoding = Lock()
        self._frame_tokens = price.frame_tokens(found.path, self._pairs, settings.vlm)

    def estimate(self) -> CostEstimate:
        """What the labelling will cost, counted by what is on disk; nothing is asked."""
        questions = [
            (self._tokens(pair, index), self._key(pair, index, swapped) in self._answers)
            for pair in self._pairs
            for index in range(len(pair.segments))
            for swapped in (False, True)
        ]
        left = [tokens for tokens, answered in questions if not answered]
        return CostEstimate(len(self._pairs), len(questions), len(questions) - len(left), sum(left))

    def run(self, chat: Chat, budget: CostLimit, tick: Callable[[], None]) -> Labelled:
        """Ask what is not answered yet, then write the labels of the whole set.

        A pair without an answer has no label and is listed under ``labels.failed`` of ``dataset.yaml``. Raises
        `DataError`, with the old labels in place, when the budget is spent, when so many pairs fail in a row that
        something else must be wrong, or all of them do; `ConfigError` for a server that will answer nothing.
        """
        judged: list[Judged | None] = [None] * len(self._pairs)
        in_a_row = 0
        try:
            with closing(self._judge_all(chat, budget)) as results:
                for index, result in results:
                    judged[index] = result
                    in_a_row = in_a_row + 1 if result.unanswered else in_a_row if result.failed else 0
                    if result.unanswered and in_a_row == self._settings.max_failed < len(judged):
                        raise DataError(f"{in_a_row} pairs in a row failed, the last: {result.failed}; {self._kept}")
                    tick()
        except Spent:
            done = sum(result is not None for result in judged)
            raise DataError(
                f"the budget is spent after {done} of {len(judged)} pairs ({budget.requests} requests, "
                f"{budget.tokens} tokens); {self._kept}"
            ) from None
        return self._write([result for result in judged if result is not None])

    @property
    def _kept(self) -> str:
        return f"the labels of {self._found.path} are as before, all answers are kept: the same command goes on"

    def _judge_all(self, chat: Chat, budget: CostLimit) -> Generator[tuple[int, Judged], None, None]:
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            waiting = {pool.submit(self._judge, pair, chat): i for i, pair in enumerate(self._pairs)}
            try:
                for future in as_completed(waiting):
                    yield waiting[future], future.result()
            finally:  # also when the caller has had enough: answers under way come in, no new question leaves
                budget.stop()
                pool.shutdown(wait=False, cancel_futures=True)

    def _judge(self, pair: Pair, chat: Chat) -> Judged:
        try:
            wrong = store.problem(self._found.path, pair, [pair.first_file_name, pair.second_file_name])
            return Judged([], failed=wrong.removeprefix(f"{pair.id}: ")) if wrong else self._ask_all(pair, chat)
        except DataError as error:
            return Judged([], failed=str(error))
        except NoAnswer as error:
            return Judged([], failed=str(error), unanswered=True)

    def _ask_all(self, pair: Pair, chat: Chat) -> Judged:
        @cache
        def clips() -> PairPictures:
            """The clips of a pair, decoded only where it has a question left."""
            with self._decoding:  # one at a time: whole videos are large, and JPEGs are not
                return pictures.read(self._found.path, pair, self._settings)

        def answer(index: int, swapped: bool) -> Record:
            question = Asked(pair, index, swapped, self._key(pair, index, swapped))
            return self._answers.get(question.key, lambda: self._ask(question, clips(), chat))

        answers = [(answer(index, False), answer(index, True)) for index in range(len(pair.segments))]
        return Judged(answers, pair.motion or clips().motion)

    def _ask(self, question: Asked, clips: PairPictures, chat: Chat) -> Record:
        pair, index = question.pair, question.index
        shown = [clips.first[index], clips.second[index]]
        first, second = shown[::-1] if question.swapped else shown
        words = self._form.ask(first, second, pair.prompt)
        found, reply = chat.ask(words, self._tokens(pair, index), self._form.read)
        return Record(
            key=question.key,
            verdict=found.verdict,
            evidence=found.evidence,
            pair=pair.id,
            segment=pair.segments[index],
            swapped=question.swapped,
            model=reply.model,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
        )

    def _tokens(self, pair: Pair, index: int) -> int:
        segment, characters = pair.segments[index], self._form.characters
        return price.question_tokens(pair, segment, self._settings, characters, self._frame_tokens)

    def _key(self, pair: Pair, index: int, swapped: bool) -> str:
        words = self._form.said(pair.prompt)
        return protocol.key(self._model, pair, pair.segments[index], swapped, self._settings, words)

    def _write(self, judged: Sequence[Judged]) -> Labelled:
        name = f"vlm:{self._model}"
        failed = {pair.id: result.failed for pair, result in zip(self._pairs, judged, strict=True) if result.failed}
        if len(failed) == len(self._pairs):
            raise DataError(f"no pair could be labelled, the first because {next(iter(failed.values()))}; {self._kept}")
        pairs = [
            pair.model_copy(update={"labeller": None} if result.failed else {**_labels(result), "labeller": name})
            for pair, result in zip(self._pairs, judged, strict=True)
        ]
        answers = [both for result in judged for both in result.answers]
        counted = tally([(a.verdict, b.verdict) for a, b in answers])
        facts: dict[str, Any] = {
            "labeller": name,
            "answered_by": sorted({record.model for both in answers for record in both}),
            **self._all.model_dump(mode="json"),
            **counted.facts(),
            "input_tokens": sum(record.input_tokens for both in answers for record in both),
            "output_tokens": sum(record.output_tokens for both in answers for record in both),
            "failed": failed,
        }
        store.write(self._found.path, {**self._found.facts, "labels": facts}, pairs)
        return Labelled(store.read(self._found.path), counted, failed)


def _recut(pair: Pair, seconds: float | None) -> Pair:
    """The pair without labels; its motion stays where it was measured on the same segments."""
    new, moved = recut(pair, seconds), pair.motion
    if moved and new.segments == pair.segments and len(moved.first) == len(moved.second) == len(pair.segments):
        return new.model_copy(update={"motion": moved})
    return new


def _labels(result: Judged) -> dict[str, Any]:
    labels = [protocol.fold(first.verdict, swapped.verdict) for first, swapped in result.answers]
    return {"labels": labels, "label": vote(labels), "motion": result.motion}
