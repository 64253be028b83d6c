"""Requests to a reward server: each gives a checked answer or raises one line."""

from __future__ import annotations

import logging
import os
from typing import TypeVar

import httpx2
from pydantic import BaseModel, Field, ValidationError, field_validator

from vpo_kit.errors import ConfigError, DataError, ModelError
from vpo_kit.net.ask import Failure, HttpAnswer, Patience, Server, Unanswered, line, patiently
from vpo_kit.rewards.base import RewardConfig

T = TypeVar("T", bound=BaseModel)

LOG = logging.getLogger(__name__)
MAX_ANSWER_BYTES = 16 * 2**20


class Connection(Patience, RewardConfig):
    """The address of a server, and how long to be patient with it."""

    url: str = Field("", validate_default=True)
    """The server's address, http://HOST:PORT."""
    token_env: str = "VPO_REWARD_TOKEN"
    """The environment variable that holds the token: a setting would be copied into every run folder and page."""

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
        self._server = Server(connection.url, _headers(connection), connection, max_bytes=MAX_ANSWER_BYTES)

    def read(self, kind: type[T], path: str, body: bytes | None = None) -> T:
        """POST `body`, or GET without one; the answer as a `kind`.

        Raises `ModelError` for a server that is down, refuses or answers something else, `DataError` for a body that
        it finds too large.
        """
        try:
            answer = patiently(lambda: self._server.send(path, body), self._connection, on_failure=self._tell)
        except Unanswered as error:
            raise ModelError(
                f"{self.name} {error} in {error.seconds:.0f} s: start it again; a run then goes on with --resume"
            ) from error
        if not answer.whole:
            raise ModelError(f"{self.name}{path} answers with more than {MAX_ANSWER_BYTES // 2**20} MB")
        if answer.status != 200:
            raise self._refusal(answer, len(body or b""))
        try:
            return kind.model_validate_json(answer.body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            said = line(": ".join([".".join(str(part) for part in first["loc"]), first["msg"]]).removeprefix(": "))
            raise ModelError(f"{self.name}{path} answers with something else than {kind.__name__}: {said}") from error

    def _tell(self, failure: Failure) -> None:
        if failure.wait_s is not None:
            retries = self._connection.retries
            LOG.warning("%s %s: retry %d of %d in %.3g s", self.name, failure, failure.number, retries, failure.wait_s)

    def _refusal(self, answer: HttpAnswer, size: int) -> ModelError | DataError:
        if answer.status in (401, 403):
            name = self._connection.token_env
            return ModelError(f"{self.name} refuses the token: set {name} to what the server printed at its start")
        problem = f"answers {answer.status}{f' ({answer.reason})' if answer.reason else ''}"
        if answer.status == 413:
            return DataError(
                f"{self.name} {problem} to {size / 2**20:.1f} MB: set reward.batch lower, "
                "reward.dtype=uint8, or serve with a larger --max-body-mb"
            )
        return ModelError(f"{self.name} {problem}: see that it is a reward server and serves the reward you mean")


def _headers(connection: Connection) -> dict[str, str]:
    token = os.environ.get(connection.token_env, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(f"{connection.token_env}: a token is one line of ASCII")
    return {"Authorization": f"Bearer {token}"} if token else {}
