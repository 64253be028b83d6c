"""Where a chat endpoint is, which key it gets, and what its refusals say."""

from __future__ import annotations

import os
from typing import Any

import httpx2

from vpo_kit.errors import ConfigError
from vpo_kit.labelling.vlm.completion import line

KEY = "OPENAI_API_KEY"
MAX_WAIT_S = 120.0


def checked_url(text: str) -> httpx2.URL:
    """An endpoint's address without its last slash. Raises `ConfigError`."""
    try:
        url = httpx2.URL(text.rstrip("/"))
    except httpx2.InvalidURL as error:
        raise ConfigError(f"--base-url {text!r} is no address ({error})") from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise ConfigError(f"--base-url: write http://HOST:PORT/v1 or https://HOST/v1; a key belongs into {KEY}")
    return url


def key_for(url: httpx2.URL) -> str:
    """What is sent as the key, from the environment alone. Raises `ConfigError`."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{KEY}: a key is one line of ASCII")
    if not key and url.host == "api.openai.com":
        raise ConfigError(f"{url.host} wants a key: set {KEY}")
    return key or "none"  # a server of one's own asks for none, the client insists on one


def retry_after(error: Any) -> float:
    """Seconds that a refusal asks for, two minutes at most; 0 where it does not say."""
    try:
        return min(max(0.0, float(error.response.headers.get("retry-after", 0))), MAX_WAIT_S)
    except ValueError:  # a date: the back-off has to do
        return 0.0


def reason(error: BaseException) -> str:
    """Why a connection failed, in one line."""
    cause = error.__cause__ or error
    return line(str(cause)) or type(cause).__name__


def nobody_there(error: BaseException) -> bool:
    """Whether no connection was ever made, rather than one that was cut."""
    return isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)
