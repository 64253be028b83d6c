"""Requests to a reward server, with patience: each gives a checked answer or raises one line."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import TypeVar

import httpx2
from pydantic import BaseModel, Field, ValidationError, field_validator

from vpo_kit.errors import ConfigError, DataError, ModelError
from vpo_kit.rewards.base import RewardConfig

T = TypeVar("T", bound=BaseModel)

LOG = logging.getLogger(__name__)
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
CONNECT_S, MAX_WAIT_S = 10.0, 60.0
MAX_ANSWER_BYTES = 16 * 2**20


class Connection(RewardConfig):
    """Where a server is, and how long to be patient with it."""

    url: str = Field("", validate_default=True)
    """The server's address, http://HOST:PORT."""
    token_env: str = "VPO_REWARD_TOKEN"
    """The environment variable that holds the token: a setting would be copied into every run folder and page."""
    timeout_s: float = Field(300.0, gt=0)
    """For one request: sending, scoring, answering."""
    retries: int = Field(6, ge=0)
    """After a server that is not there, is cut off, or answers 408, 429 or 500 and above."""
    backoff_s: float = Field(1.0, ge=0)
    """Wait before the first retry; it doubles each time, up to 60 s."""

    @field_validator("url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        try:
            url = httpx2.URL(value)
        except httpx2.InvalidURL as error:
            raise ValueError(f"no address ({error})") from error
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
            raise ValueError("write remote:http://HOST:PORT, without a user, ? or #")
        return value.rstrip("/")


class Client:
    """One server. Raises `ConfigError` for a token that no header can carry."""

    def __init__(self, connection: Connection) -> None:
        self.name = f"reward server {connection.url}"
        self._connection = connection
        self._headers = _headers(connection)
        self._proxies = httpx2.URL(connection.url).host not in LOOPBACK  # a proxy cannot reach this machine

    def read(self, kind: type[T], path: str, body: bytes | None = None) -> T:
        """POST `body`, or GET without one; the answer as a `kind`.

        Raises `ModelError` for a server that is down, refuses or answers something else, `DataError` for a body that
        it finds too large.
        """
        answer = self._ask(path, body)
        try:
            return kind.model_validate_json(answer)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            said = _line(": ".join([".".join(str(part) for part in first["loc"]), first["msg"]]).removeprefix(": "))
            raise ModelError(f"{self.name}{path} answers with something else than {kind.__name__}: {said}") from error

    def _ask(self, path: str, body: bytes | None) -> bytes:
        started, problem, retries = time.monotonic(), "", self._connection.retries
        for tries in range(retries + 1):
            if tries:
                wait = min(self._connection.backoff_s * 2 ** (tries - 1), MAX_WAIT_S)
                LOG.warning("%s %s: retry %d of %d in %.3g s", self.name, problem, tries, retries, wait)
                time.sleep(wait)
            try:
                status, answer = self._send(path, body)
            except httpx2.RequestError as error:
                problem = f"does not answer ({_line(str(error)) or type(error).__name__})"
                continue
            if status == 200:
                return answer
            problem = f"answers {status}{_detail(answer)}"
            if status not in (408, 429) and status < 500:
                raise self._refusal(status, problem, len(body or b""))
        spent = time.monotonic() - started
        raise ModelError(f"{self.name} {problem}, also after {retries} retries in {spent:.0f} s: start it again; a run "
                         "then goes on with --resume")  # fmt: skip

    def _send(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        """Status and answer, both within the time limit and the answer within its size."""
        limit = self._connection.timeout_s
        deadline, answer = time.monotonic() + limit, bytearray()
        timeout = httpx2.Timeout(limit, connect=min(limit, CONNECT_S))
        method, url = "GET" if body is None else "POST", self._connection.url + path
        # a connection of its own for each request: one kept open would be a dead one after the server's restart
        with (
            httpx2.Client(timeout=timeout, headers=self._headers, trust_env=self._proxies) as client,
            client.stream(method, url, content=body) as response,
        ):
            for chunk in response.iter_bytes():
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES:
                    raise ModelError(f"{self.name}{path} answers with more than {MAX_ANSWER_BYTES // 2**20} MB")
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout(f"no whole answer within {limit:.3g} s")
            return response.status_code, bytes(answer)

    def _refusal(self, status: int, problem: str, size: int) -> ModelError | DataError:
        if status in (401, 403):
            name = self._connection.token_env
            return ModelError(f"{self.name} refuses the token: set {name} to what the server printed at its start")
        if status == 413:
            return DataError(f"{self.name} {problem} to {size / 2**20:.1f} MB: set reward.batch lower, "
                             "reward.dtype=uint8, or serve with a larger --max-body-mb")  # fmt: skip
        return ModelError(f"{self.name} {problem}: see that it is a reward server and serves the reward you mean")


def _headers(connection: Connection) -> dict[str, str]:
    token = os.environ.get(connection.token_env, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(f"{connection.token_env}: a token is one line of ASCII")
    return {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {token}"} if token else {})}


def _detail(answer: bytes) -> str:
    """The reason that an error's body gives, in brackets."""
    try:
        reason = _line(str(json.loads(answer)["detail"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f" ({reason})" if reason else ""


def _line(text: str) -> str:
    """Somebody else's words as one short line that a terminal does not act on."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
