"""Two clips at hand, compared by a vision-language model as it would label their pair: each segment in both orders.

Legend: ``F`` frames; video ``[F, 3, H, W]`` in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from weakref import finalize

from torch import Tensor

from vpo_kit.errors import DataError
from vpo_kit.labelling.comparing import Comparer, Match, pair_of
from vpo_kit.labelling.vlm import forms, pictures, price, protocol
from vpo_kit.labelling.vlm.chat import Chat, NoAnswer
from vpo_kit.labelling.vlm.limits import CostLimit, Spent
from vpo_kit.labelling.vlm.pictures import Picture
from vpo_kit.labelling.vlm.protocol import Verdict
from vpo_kit.labelling.vlm.settings import VlmLabelling
from vpo_kit.labelling.vlm.tally import tally
from vpo_kit.pairing.segments import vote

Both = tuple[Verdict, Verdict]
"""On one segment: as the clips stand, and swapped."""


class VlmComparer(Comparer):
    """One model on one server. Raises `ConfigError` for settings with which nothing could be asked."""

    def __init__(self, settings: VlmLabelling) -> None:
        assert settings.base_url is not None
        assert settings.model is not None
        self._seconds, self._settings = settings.segment_seconds, settings.vlm
        self._budget = CostLimit(self._settings.budget_requests, self._settings.budget_tokens)
        self._chat = Chat(settings.base_url, settings.model, self._settings, self._budget)
        finalize(self, self._chat.close)  # it is asked as long as a run lasts, and no block of a run is its own
        self._form = forms.of(self._settings)
        self._verdicts: list[Both] = []
        self._failed_in_a_row = 0

    def compare(self, matches: Sequence[Match]) -> list[int | None]:
        """Raises `DataError` when the budget is spent or `max_failed` comparisons in a row fail, `ConfigError` for a
        server that will answer nothing.
        """
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            waiting = [pool.submit(self._judge, match) for match in matches]
            try:
                found = [self._counted(future.result()) for future in waiting]
            except BaseException as error:
                self._budget.stop()  # answers under way come in, no new question leaves
                if isinstance(error, Spent):
                    raise DataError(f"the budget of the judge is spent ({self._used}): raise it and --resume") from None
                raise
        return [vote([protocol.fold(*both) for both in verdicts]) if verdicts else None for verdicts in found]

    def spent(self) -> list[str]:
        lines = [f"{count} x {text}" for text, count in sorted(self._chat.events.items())]
        if self._verdicts:
            told = tally(self._verdicts)
            lines.append(f"both orders agree in {told.consistency:.0%} of {told.segments} segments")
        return [*lines, self._used]

    @property
    def _used(self) -> str:
        return f"{self._budget.requests} requests, {self._budget.tokens} tokens"

    def _counted(self, found: list[Both] | NoAnswer) -> list[Both]:
        if not isinstance(found, NoAnswer):
            self._failed_in_a_row = 0
            self._verdicts += found
            return found
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self._settings.max_failed:
            raise DataError(f"{self._failed_in_a_row} comparisons in a row failed, the last: {found}")
        return []

    def _judge(self, match: Match) -> list[Both] | NoAnswer:
        pair = pair_of(len(match.first), match.fps, match.prompt, self._seconds)
        size = price.size_tokens(self._settings, *match.first.shape[-2:])
        found: list[Both] = []
        try:
            for segment in pair.segments:
                shown = partial(pictures.pictures, segment=segment, fps=match.fps, settings=self._settings)
                clips = shown(_plain(match.first)), shown(_plain(match.second))
                tokens = price.question_tokens(pair, segment, self._settings, self._form.characters, size)
                found.append((self._ask(clips, match, tokens), self._ask(clips[::-1], match, tokens)))
        except NoAnswer as error:
            return error
        return found

    def _ask(self, clips: tuple[list[Picture], ...], match: Match, tokens: int) -> Verdict:
        words = self._form.ask(clips[0], clips[1], match.prompt)
        return self._chat.ask(words, tokens, self._form.read)[0].verdict


def _plain(video: Tensor) -> Tensor:
    return video.detach().float().cpu()
