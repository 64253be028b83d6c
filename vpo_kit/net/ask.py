"""Questions to servers over HTTP, asked with patience: one set of rules for every server that is asked.

Asked again is what may get better by itself: nobody there, a connection that is cut, no whole answer in time, and the
statuses 408, 409, 429 and 500 and above. Any other status is an answer, which the asker has to understand.

The waits double from `Patience.backoff_s` up to a minute, each a quarter longer or shorter by chance, so that many
askers do not come back all at once. A server that asks for more time (``Retry-After``, in seconds or as a date) gets
it, up to two minutes. Redirections are not followed, and a proxy is not asked for this machine's own servers.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from pydantic import Field

from vpo_kit.config import Section

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
CONNECT_S, MAX_BACKOFF_S, MAX_ASKED_S = 10.0, 60.0, 120.0
PASSING = {408, 409, 429}
"""Statuses below 500 that say nothing about the question itself."""
SAID = ("detail", "error", "message", "msg", "body")
"""Names under which servers put the words of an error, the first that has some counts."""


class Patience(Section):
    """How long a server is waited for; a part of the settings of whatever asks one."""

    timeout_s: float = Field(300.0, gt=0, description="for one request: sending, working, answering")
    retries: int = Field(6, ge=0, description="after 408, 409, 429, 500 and above, a time-out or a cut connection")
    backoff_s: float = Field(1.0, ge=0, description="wait in seconds before the first retry; doubles up to a minute")


@dataclass(frozen=True)
class HttpAnswer:
    """A status and a body, of which no more was read than the asker wants."""

    status: int
    body: bytes
    whole: bool = True
    """Whether `body` is all of it."""
    wait_s: float = 0.0
    """Seconds for which the server asks before the next request, two minutes at most."""

    @property
    def passing(self) -> bool:
        """Whether the same question may get another answer later."""
        return self.status in PASSING or self.status >= 500

    @property
    def error(self) -> Mapping[str, Any]:
        """What an error's body says of itself: OpenAI's ``error`` or the whole object; empty where it is none."""
        found = _json(self.body)
        inner = found.get("error", found) if isinstance(found, dict) else {}
        return inner if isinstance(inner, dict) else {"message": inner}

    @property
    def reason(self) -> str:
        """The reason that an error's body gives, as one line; empty where it gives none."""
        return line(said(_json(self.body)))


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One request that gave no answer to go on with."""

    problem: str
    """``answers 503`` or ``does not answer (why)``."""
    reason: str
    """The server's own words, where there are any."""
    met: bool
    """Whether there was a connection."""
    number: int
    """The number of the request, from 1 on."""
    wait_s: float | None
    """Seconds before the next request; None after the last."""

    def __str__(self) -> str:
        return f"{self.problem} ({self.reason})" if self.reason else self.problem


class Unanswered(Exception):
    """Patience has come to its end; the text says why, without the server's name."""

    def __init__(self, last: Failure, seconds: float) -> None:
        super().__init__(f"{last}, also after {last.number - 1} retries")
        self.last = last
        self.seconds = seconds


class Server:
    """One address. `kept` connections stay open between requests; with none, nothing needs to be closed.

    Shared by threads. A server that was started again is found where no connection is kept.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], patience: Patience, *, max_bytes: int, kept: int = 0
    ) -> None:
        self._url = url
        self._limit = patience.timeout_s
        self._max_bytes = max_bytes
        self._client = httpx2.Client(
            headers={"Accept-Encoding": "identity", **headers},
            timeout=httpx2.Timeout(self._limit, connect=min(self._limit, CONNECT_S)),
            limits=httpx2.Limits(max_connections=kept or None, max_keepalive_connections=kept),
            trust_env=httpx2.URL(url).host not in LOOPBACK,
        )

    def close(self) -> None:
        self._client.close()

    def send(self, path: str, content: bytes | None = None, kind: str = "application/octet-stream") -> HttpAnswer:
        """POST `content`, or GET without it, once. Raises `httpx2.RequestError` without a whole answer in time."""
        deadline, body = time.monotonic() + self._limit, bytearray()
        method, headers = ("GET", {}) if content is None else ("POST", {"Content-Type": kind})
        with self._client.stream(method, self._url + path, content=content, headers=headers) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > self._max_bytes:
                    break
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout(f"no whole answer within {self._limit:.3g} s")
            whole = len(body) <= self._max_bytes
            return HttpAnswer(response.status_code, bytes(body), whole, _asked(response.headers.get("retry-after", "")))


def patiently(
    send: Callable[[], HttpAnswer],
    patience: Patience,
    *,
    pause: Callable[[float], None] = time.sleep,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> HttpAnswer:
    """The first answer of `send` that waiting would not change; `on_failure` is told of each one before it.

    `pause` waits, and may raise to end all this. Raises `Unanswered`.
    """
    started = time.monotonic()
    number = 0
    while True:
        number += 1
        asked, reason, met = 0.0, "", True
        try:
            answer = send()
        except httpx2.RequestError as error:
            problem = f"does not answer ({line(str(error)) or type(error).__name__})"
            met = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
        else:
            if not answer.passing:
                return answer
            problem, reason, asked = f"answers {answer.status}", answer.reason, answer.wait_s
        last = number > patience.retries
        wait = None if last else max(asked, backoff(patience, number) * random.uniform(0.75, 1.25))
        failure = Failure(problem=problem, reason=reason, met=met, number=number, wait_s=wait)
        on_failure(failure)
        if wait is None:
            raise Unanswered(failure, time.monotonic() - started)
        pause(wait)


def backoff(patience: Patience, number: int) -> float:
    """Seconds after the failure of request `number` (from 1 on), before chance has moved them."""
    return min(patience.backoff_s * 2.0 ** min(number - 1, 64), MAX_BACKOFF_S)


def line(text: str) -> str:
    """Somebody else's words as one short line that a terminal does not act on."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


def said(found: object, depth: int = 8) -> str:
    """The words in an error of JSON, by the names that servers have for them; empty where there are none.

    FastAPI: ``detail``, a text or a list of ``msg`` with the place ``loc``; OpenAI and vLLM: ``error`` or the whole,
    with ``message``; others nest them in a ``body``, or give plain text. Deeper than `depth` is not looked.
    """
    if not depth:
        return ""
    if isinstance(found, list):
        return "; ".join(words for each in found if (words := said(each, depth - 1)))
    if not isinstance(found, dict):
        return str(found) if isinstance(found, str | int | float) else ""
    words = next((text for name in SAID if (text := said(found.get(name), depth - 1))), "")
    place = found.get("loc")
    return f"{'.'.join(map(str, place))}: {words}" if words and isinstance(place, list) else words


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _asked(text: str) -> float:
    """Seconds in a ``Retry-After``; 0 where it says nothing of use."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), MAX_ASKED_S) if seconds == seconds else 0.0
