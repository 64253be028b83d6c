"""An OpenAI-compatible chat endpoint, asked with patience and within a budget.

OpenAI, vLLM, SGLang, llama.cpp and Ollama speak it: ``POST BASE_URL/chat/completions``.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from threading import Lock
from types import TracebackType
from typing import Any, TypeVar

from vpo_kit.errors import ConfigError
from vpo_kit.labelling.vlm.completion import Completion, Reply, parse
from vpo_kit.labelling.vlm.endpoint import KEY, checked_url, key_for
from vpo_kit.labelling.vlm.limits import CostLimit
from vpo_kit.labelling.vlm.protocol import AGAIN, RESPONSE_FORMAT
from vpo_kit.labelling.vlm.settings import Vlm
from vpo_kit.net.ask import Failure, HttpAnswer, Server, Unanswered, line, patiently

T = TypeVar("T")

LOG = logging.getLogger(__name__)
MAX_ANSWER_BYTES = 2**20
"""No answer to a question is so long: one that is cannot be read."""
UNLIMITED_TOKENS = 4096
"""Tokens that are put aside for an answer whose length nothing limits."""
UNKNOWN_FIELD = (400, 415, 422, 501)
"""What servers answer to a field that they do not know."""
NEWER, OLDER = "max_completion_tokens", "max_tokens"
"""OpenAI's two names of the limit on an answer: its reasoning models refuse the older, older servers the newer."""


class NoAnswer(Exception):
    """A question to which no usable answer came, in one line for the list of failed pairs."""


class Chat:
    """One model on one server; shared by threads. `events` counts what went wrong, by its name.

    Raises `ConfigError` for an address that is none, and for OpenAI's own without a key.
    """

    def __init__(self, base_url: str, model: str, settings: Vlm, budget: CostLimit) -> None:
        self.events: Counter[str] = Counter()
        self._url = checked_url(base_url)
        self._model = model
        self._settings = settings
        self._budget = budget
        self._lock = Lock()
        self._schema = settings.answers != "text" and settings.preset is None
        self._schema_works = settings.answers == "schema"
        self._limit = NEWER
        self._answered = False
        headers = {"Authorization": f"Bearer {key_for(self._url)}"}
        self._server = Server(str(self._url), headers, settings, max_bytes=MAX_ANSWER_BYTES, kept=settings.concurrency)

    def __enter__(self) -> Chat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections that are kept."""
        self._server.close()

    def ask(self, messages: list[dict[str, Any]], tokens_in: int, read: Callable[[str], T]) -> tuple[T, Reply]:
        """A reply that `read` can use, asked for again when it raises `ValueError`.

        Raises `NoAnswer`, `Spent`, and `ConfigError` for a server that would answer no other question either.
        """
        problem = ""
        for tried in range(self._settings.tries):
            found = self._patiently(_again(messages) if tried else messages, tokens_in)
            try:
                reply = found.reply(self._model, tokens_in)
                return read(reply.text), reply
            except ValueError as error:
                problem = line(str(error))
                self._count("an answer that could not be read")
        raise NoAnswer(f"{self._settings.tries} answers could not be read, the last: {problem}")

    def _patiently(self, messages: list[dict[str, Any]], tokens_in: int) -> Completion:
        """An answer with status 200, after retries."""
        try:
            answer = patiently(
                lambda: self._send(messages, tokens_in),
                self._settings,
                pause=self._budget.pause,
                on_failure=self._failed,
            )
        except Unanswered as error:
            if not self._answered and not error.last.met:
                raise ConfigError(f"--base-url {self._url}: the server {error}") from error
            raise NoAnswer(f"the server {error}") from error
        if answer.status != 200:
            raise self._refusal(answer)
        return parse(answer.body)

    def _send(self, messages: list[dict[str, Any]], tokens_in: int) -> HttpAnswer:
        """One request; what a server refuses by name is asked for in another way: the limit on tokens by its older
        name, a JSON schema in the prompt's words alone.
        """
        schema, limit = self._schema, self._limit
        answer = self._post(messages, tokens_in, schema, limit)
        if limit == NEWER and answer.status in UNKNOWN_FIELD and NEWER.encode() in answer.body:
            other = self._post(messages, tokens_in, schema, OLDER)
            # "max_tokens is not supported, use max_completion_tokens": then the first refusal was about the number
            if other.status == 200 or OLDER.encode() not in other.body:
                self._other_limit()
                answer, limit = other, OLDER
        if schema and answer.status == 200:
            self._schema_works = True
        if not schema or self._schema_works or answer.status not in UNKNOWN_FIELD:
            return self._checked(answer)
        answer = self._post(messages, tokens_in, False, limit)
        if answer.status == 200 and self._schema:
            self._schema = False
            LOG.warning("the server refuses a JSON schema: its answers are read as text")
        return self._checked(answer)

    def _other_limit(self) -> None:
        with self._lock:
            known, self._limit = self._limit == OLDER, OLDER
        if not known:
            LOG.warning(f"the server does not know {NEWER}: it gets {OLDER}")

    def _post(self, messages: list[dict[str, Any]], tokens_in: int, schema: bool, limit: str) -> HttpAnswer:
        """One answer, and its cost booked: nothing for a refusal, all that was put aside for what broke off, since
        that may still be charged.
        """
        body: dict[str, Any] = {"model": self._model, "messages": messages, **self._settings.extra}
        if schema:
            body["response_format"] = RESPONSE_FORMAT
        for name, value in (
            ("temperature", self._settings.temperature),
            (limit, self._settings.max_completion_tokens),
        ):
            if value is not None:
                body[name] = value
        content = json.dumps(body).encode()
        aside = self._budget.put_aside(tokens_in, self._settings.max_completion_tokens or UNLIMITED_TOKENS)
        used = aside
        estimated: tuple[int, int] | None = None
        try:
            answer = self._server.send("/chat/completions", content, "application/json")
            if answer.status == 200:
                cost = parse(answer.body).cost
                used = cost.total if cost else aside
                estimated = (tokens_in, cost.prompt_tokens if cost else tokens_in)
                self._answered = True
            else:
                used = 0
            return answer
        finally:
            self._budget.book(aside, used, tokens_in=estimated)

    def _failed(self, failure: Failure) -> None:
        self._count(f"the server {failure.problem}")

    def _count(self, event: str) -> None:
        with self._lock:
            self.events[event] += 1

    def _checked(self, answer: HttpAnswer) -> HttpAnswer:
        """The answer, but for one that says by its words that waiting is of no use. Raises `ConfigError`."""
        if answer.error.get("code") == "insufficient_quota":
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: HttpAnswer) -> NoAnswer | ConfigError:
        """The refusal as an error: of this question alone, or of all that will ever be asked."""
        status, spent = answer.status, answer.error.get("code") == "insufficient_quota"
        said = f"{status} ({answer.reason})" if answer.reason else str(status)
        if status in (401, 402) or spent or (status == 403 and not self._answered):
            what = f"{status}, which is about {KEY} or its account" + ("" if status == 401 else f": {said}")
            return ConfigError(f"--base-url {self._url} answers {what}")
        if status == 404:
            return ConfigError(
                f"--base-url {self._url} answers {said}: it serves no model {self._model!r}, or the address lacks its "
                "/v1"
            )
        return NoAnswer(f"the server answers {said}")


def _again(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The question with a reminder in the same message: some models' templates take no two messages of one role."""
    *before, last = messages
    return [*before, {**last, "content": [*last["content"], {"type": "text", "text": AGAIN}]}]
