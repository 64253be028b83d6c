"""The address of a chat endpoint, and which key it gets."""

from __future__ import annotations

import os

import httpx2

from vpo_kit.errors import ConfigError

KEY = "OPENAI_API_KEY"


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
    return key or "none"  # some servers of one's own want the header, whatever it says
