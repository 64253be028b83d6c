"""`vpo label SET --with vlm`: a vision-language model behind a chat endpoint as labeller."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vpo_kit import config
from vpo_kit.errors import ConfigError
from vpo_kit.labelling.vlm.budget import Budget
from vpo_kit.labelling.vlm.chat import Chat
from vpo_kit.labelling.vlm.cost import Estimate
from vpo_kit.labelling.vlm.labeller import Labelled, Labeller
from vpo_kit.labelling.vlm.settings import Vlm, VlmLabelling
from vpo_kit.library.display import count_bar
from vpo_kit.pairing import store
from vpo_kit.processes import Processes


def run(path: Path, base_url: str | None, model: str | None, assignments: Sequence[str]) -> None:
    """Label a finished set anew, or go on with it. Raises `VpoError`."""
    if not base_url or not model:
        raise ConfigError("--with vlm: give --base-url URL and --model NAME")
    settings = config.validate(VlmLabelling, config.read_assignments(assignments))
    if Processes().count > 1:
        raise ConfigError("--with vlm is one process: vlm.concurrency says how many questions are under way at once")
    console = Console()
    budget = Budget(settings.vlm.budget_requests, settings.vlm.budget_tokens)
    with Chat(base_url, model, settings.vlm, budget) as chat:
        labeller = Labeller(store.read(path), model, settings)
        estimate = labeller.estimate()
        for text in _expected(estimate, settings.vlm):
            _say(console, text)
        try:
            with count_bar(console, "labels", estimate.pairs) as tick:
                done = labeller.run(chat, budget, lambda: tick(1))
        finally:
            for text, count in sorted(chat.events.items()):
                _say(console, f"{count} x {text}")
            _say(console, f"used: {budget.requests} requests, {budget.tokens} tokens")
    for text in _outcome(done):
        _say(console, text)


def _expected(estimate: Estimate, settings: Vlm) -> list[str]:
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
        f"consistency: both orders agree in {tally.consistency:.0%} of {tally.segments} segments",
    ]
    if tally.first_share is not None:
        named = tally.first + tally.second
        bias = ": this model judges by position, and the second order made ties of that" if tally.biased else ""
        lines.append(f"position: {tally.first_share:.0%} of {named} verdicts name the clip shown first{bias}")
    return [*lines, *(f"failed: {name}: {reason}" for name, reason in done.failed.items())]


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)
