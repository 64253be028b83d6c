"""A vision-language model behind a chat endpoint as labeller: ``vlm:MODEL``."""

from __future__ import annotations

from contextlib import closing
from typing import Any, ClassVar

import torch

from vpo_kit.errors import ConfigError
from vpo_kit.labelling.answers import labelling
from vpo_kit.labelling.base import Labeller, Surroundings, alone
from vpo_kit.labelling.comparing import Comparer, pair_of
from vpo_kit.labelling.older import LONG_S, opened
from vpo_kit.labelling.vlm.chat import MAX_ANSWER_BYTES, Chat
from vpo_kit.labelling.vlm.comparer import VlmComparer
from vpo_kit.labelling.vlm.endpoint import checked_url, key_for
from vpo_kit.labelling.vlm.interview import Interview, Labelled
from vpo_kit.labelling.vlm.limits import CostLimit
from vpo_kit.labelling.vlm.price import CostEstimate
from vpo_kit.labelling.vlm.settings import Vlm, VlmLabelling
from vpo_kit.net.ask import Server, Unanswered, patiently
from vpo_kit.pairing.settings import Cutting
from vpo_kit.pairing.store import PairSet


class ByVlm(Labeller):
    """DenseDPO's protocol with any model that OpenAI's chat completions reach."""

    Config: ClassVar[type[Cutting]] = VlmLabelling
    argument: ClassVar[str | None] = "model"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if not config.base_url or not config.model:
            raise ConfigError("labeller vlm: give --base-url URL and --model NAME")
        key_for(checked_url(config.base_url))

    def locate(self) -> None:
        """Raises `ConfigError` where nobody answers at the address, whatever an answer says."""
        url, patience = checked_url(self.config.base_url), self.config.vlm
        server = Server(str(url), {"Authorization": f"Bearer {key_for(url)}"}, patience, max_bytes=MAX_ANSWER_BYTES)
        try:
            patiently(lambda: server.send("/models"), patience)
        except Unanswered as error:
            if not error.last.met:
                raise ConfigError(f"--base-url {url}: the server {error}") from error
        finally:
            server.close()

    def comparer(self, device: torch.device) -> Comparer:
        return VlmComparer(self.config)

    def requests(self, frames: int, fps: float) -> int:
        return 2 * len(pair_of(frames, fps, "", self.config.segment_seconds).segments)

    def label(self, found: PairSet, around: Surroundings) -> PairSet:
        alone(around, "vlm", "vlm.concurrency says how many questions are under way at once")
        settings = self.config.vlm
        budget = CostLimit(settings.budget_requests, settings.budget_tokens)
        with (
            labelling(found.path),
            closing(opened(found.path, wait_s=LONG_S, say=around.say)) as kept,
            Chat(self.config.base_url, self.config.model, settings, budget) as chat,
        ):
            interview = Interview(found, self.config.model, self.config, kept)
            estimate = interview.estimate()
            for text in _expected(estimate, settings):
                around.say(text)
            try:
                with around.bar("labels", estimate.pairs) as tick:
                    done = interview.run(chat, budget, lambda: tick(1))
            finally:
                for text, count in sorted(chat.events.items()):
                    around.say(f"{count} x {text}")
                around.say(f"used: {budget.requests} requests, {budget.tokens} tokens")
        for text in _outcome(done):
            around.say(text)
        return done.found


def _expected(estimate: CostEstimate, settings: Vlm) -> list[str]:
    left = estimate.questions - estimate.answered
    limit = settings.max_completion_tokens
    out = f"at most {left * limit} out" if limit else "no limit on those out"
    budget = [
        f"{value} {name}"
        for value, name in ((settings.budget_requests, "requests"), (settings.budget_tokens, "tokens"))
        if value is not None
    ]
    return [
        f"{estimate.pairs} pairs, {estimate.questions // 2} segments in both orders: {estimate.questions} questions, "
        f"{estimate.answered} of them answered before",
        f"estimate: {left} requests, about {estimate.tokens_in} tokens in, {out}",
        f"budget: {' and '.join(budget) or 'none (vlm.budget_requests, vlm.budget_tokens)'}",
    ]


def _outcome(done: Labelled) -> list[str]:
    found, tally = done.found, done.tally
    labels: list[int] = [value for pair in found.pairs for value in pair.labels or ()]
    counts = ", ".join(f"{name} {labels.count(value)}" for name, value in (("first", 1), ("second", -1), ("tie", 0)))
    lines = [
        f"{found.path}: {len(found.pairs) - len(done.failed)} pairs labelled, {len(done.failed)} failed",
        f"segments: {counts}",
        f"consistency: both orders agree in {tally.consistency:.0%} of {tally.segments} segments, where guesses would "
        f"in {tally.chance:.0%}{': these labels are no better than guesses' if tally.guessing else ''}",
    ]
    if tally.first_share is not None:
        named = tally.first + tally.second
        bias = ": this model judges by position, and the second order made ties of that" if tally.biased else ""
        lines.append(f"position: {tally.first_share:.0%} of {named} verdicts name the clip shown first{bias}")
    return [*lines, *(f"failed: {name}: {reason}" for name, reason in done.failed.items())]
