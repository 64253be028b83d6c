"""An OpenAI-compatible chat endpoint, asked with patience and within a budget. Needs the extra ``vlm``.

OpenAI, vLLM, SGLang, llama.cpp and Ollama speak it: ``POST BASE_URL/chat/completions``.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from threading import Lock
from types import TracebackType
from typing import Any, TypeVar

import httpx2

from vpo_kit.errors import ConfigError
from vpo_kit.labelling.vlm.budget import Budget
from vpo_kit.labelling.vlm.completion import Completion, Reply, line, parse
from vpo_kit.labelling.vlm.endpoint import KEY, checked_url, key_for, nobody_there, reason, retry_after
from vpo_kit.labelling.vlm.protocol import AGAIN, RESPONSE_FORMAT
from vpo_kit.labelling.vlm.settings import Vlm
from vpo_kit.rewards.parts.client import LOOPBACK

T = TypeVar("T")

LOG = logging.getLogger(__name__)
CONNECT_S, MAX_BACKOFF_S = 10.0, 60.0
MAX_ANSWER_BYTES = 2**20
UNLIMITED_TOKENS = 4096
"""Put aside for an answer whose length nothing limits."""


class NoAnswer(Exception):
    """A question to which no usable answer came, in one line for the list of failed pairs."""


class Chat:
    """One model on one server; shared by threads. `events` counts what went wrong, by its name.

    Raises `ConfigError` without the client, for an address that is none, and for OpenAI's own without a key.
    """

    def __init__(self, base_url: str, model: str, settings: Vlm, budget: Budget) -> None:
        try:
            import openai
        except ImportError as error:
            raise ConfigError(f"--with vlm needs {error.name}: pip install 'vpo-kit[vlm]'") from error
        self.events: Counter[str] = Counter()
        self._url = checked_url(base_url)
        self._model = model
        self._settings = settings
        self._budget = budget
        self._lock = Lock()
        self._openai = openai
        self._schema = settings.answers != "text" and settings.preset is None
        self._schema_works = settings.answers == "schema"
        self._answered = False
        limits = httpx2.Limits(max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency)
        timeout = httpx2.Timeout(settings.timeout_s, connect=min(settings.timeout_s, CONNECT_S))
        proxies = self._url.host not in LOOPBACK  # a proxy cannot reach this machine
        http = httpx2.Client(timeout=timeout, limits=limits, trust_env=proxies)
        # retries are counted and paid for here, so the client itself makes none
        self._client = openai.OpenAI(
            api_key=key_for(self._url), base_url=str(self._url), max_retries=0, http_client=http
        )

    def __enter__(self) -> Chat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

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
        problem, wait = "", 0.0
        for tried in range(self._settings.retries + 1):
            if tried:
                backoff = min(self._settings.backoff_s * 2 ** (tried - 1), MAX_BACKOFF_S) * random.uniform(0.75, 1.25)
                self._budget.pause(max(backoff, wait))
            try:
                return self._send(messages, tokens_in)
            except self._openai.APIStatusError as error:
                problem, wait = self._status(error), retry_after(error)
            except (self._openai.APIConnectionError, httpx2.RequestError) as error:
                problem, wait = f"the server does not answer ({reason(error)})", 0.0
                if not self._answered and tried == self._settings.retries and nobody_there(error):
                    raise ConfigError(f"--base-url {self._url}: {problem}, also after {tried} retries") from error
            self._count(problem)
        raise NoAnswer(f"{problem}, also after {self._settings.retries} retries")

    def _send(self, messages: list[dict[str, Any]], tokens_in: int) -> Completion:
        """One request; a server that refuses a JSON schema gets a second one without it."""
        schema = self._schema
        try:
            found = self._post(messages, tokens_in, schema)
        except self._openai.APIStatusError as error:
            if not schema or self._schema_works or error.status_code not in (400, 415, 422, 501):
                raise
            found = self._post(messages, tokens_in, schema=False)
            if self._schema:
                self._schema = False
                LOG.warning("the server refuses a JSON schema: its answers are read as text")
            return found
        self._schema_works = self._schema_works or schema
        return found

    def _post(self, messages: list[dict[str, Any]], tokens_in: int, schema: bool) -> Completion:
        """One answer, within the time limit, and its cost booked."""
        options: dict[str, Any] = {"extra_body": self._settings.extra} if self._settings.extra else {}
        if schema:
            options["response_format"] = RESPONSE_FORMAT
        for name in ("temperature", "max_completion_tokens"):
            if getattr(self._settings, name) is not None:
                options[name] = getattr(self._settings, name)
        aside = self._budget.put_aside(tokens_in, self._settings.max_completion_tokens or UNLIMITED_TOKENS)
        used = aside  # what is cut off may still be charged
        estimated: tuple[int, int] | None = None
        try:
            found = parse(self._receive(messages, options))
            used = found.cost.total if found.cost else aside
            estimated = (tokens_in, found.cost.prompt_tokens if found.cost else tokens_in)
            self._answered = True
            return found
        except self._openai.APIStatusError:
            used = 0
            raise
        finally:
            self._budget.book(aside, used, tokens_in=estimated)

    def _receive(self, messages: list[dict[str, Any]], options: dict[str, Any]) -> bytes:
        limit, body = self._settings.timeout_s, bytearray()
        deadline = time.monotonic() + limit
        create: Any = self._client.chat.completions.with_streaming_response.create
        with create(model=self._model, messages=messages, **options) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    break  # no answer to this question is so long: what is there cannot be read
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout(f"no whole answer within {limit:.3g} s")
        return bytes(body)

    def _count(self, event: str) -> None:
        with self._lock:
            self.events[event] += 1

    def _status(self, error: Any) -> str:
        """An answer that may get better with time, as words. Raises `NoAnswer` or `ConfigError` for any other."""
        status, spent = int(error.status_code), error.code == "insufficient_quota"
        said = f"{status} ({line(error.message)})"
        if status in (401, 402) or spent or (status == 403 and not self._answered):
            what = f"{status}, which is about {KEY} or its account" + ("" if status == 401 else f": {said}")
            raise ConfigError(f"--base-url {self._url} answers {what}") from error
        if status == 404:
            raise ConfigError(
                f"--base-url {self._url} answers 404: it serves no model {self._model!r}, or the address lacks its /v1"
            ) from error
        if status in (408, 409, 429) or status >= 500:
            return f"the server answers {status}"
        raise NoAnswer(f"the server answers {said}") from error


def _again(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The question with a reminder in the same message: some models' templates take no two messages of one role."""
    *before, last = messages
    return [*before, {**last, "content": [*last["content"], {"type": "text", "text": AGAIN}]}]
