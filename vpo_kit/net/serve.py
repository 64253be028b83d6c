"""What the HTTP servers of this project share: a port, a token, a limit on bodies. Needs the extra ``server``."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from starlette.requests import ClientDisconnect

from vpo_kit.errors import ConfigError
from vpo_kit.net.places import Placed

IDLE_S = 20.0
"""The seconds for which a body may stand still."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises `ConfigError` for a port that is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (while")[0]  # Python repeats the address here
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}: give another --port or --host") from error


def address(host: str, listener: socket.socket) -> str:
    """``http://HOST:PORT`` of a listening socket."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def settings(app: FastAPI, connections: int) -> uvicorn.Config:
    """The settings of a quiet server for `app` that answers 503 beyond so many requests at once (`net.places`)."""
    return uvicorn.Config(
        app,
        http=Placed,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        limit_concurrency=connections,
        timeout_graceful_shutdown=5,
    )


def same(given: str, expected: str) -> bool:
    """Whether a token is the right one, in a time that does not tell how much of it is."""
    return secrets.compare_digest(given.encode(), expected.encode())


async def chunks(request: Request, limit: int, hint: str = "") -> AsyncIterator[bytes]:
    """The pieces of a request's body. One over the limit is refused as soon as that shows, without reading on.

    Raises 413 then, 408 when the client leaves or is silent for `IDLE_S` seconds; `hint` names the option that sets the
    limit.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large(limit, hint)
    count = 0
    stream = request.stream()
    try:
        while (chunk := await asyncio.wait_for(anext(stream, None), IDLE_S)) is not None:
            count += len(chunk)
            if count > limit:
                raise too_large(limit, hint)
            yield chunk
    except ClientDisconnect:
        raise HTTPException(408, "the body broke off") from None
    except TimeoutError:
        raise HTTPException(408, f"no byte of the body for {IDLE_S:g} s", {"Connection": "close"}) from None


def too_large(limit: int, hint: str = "") -> HTTPException:
    """The refusal of a body, with which the connection ends."""
    size = f"{limit / 2**20:.4g} MB" if limit >= 2**20 else f"{limit / 2**10:.4g} KB"
    return HTTPException(413, f"the body is larger than {size}{f' ({hint})' if hint else ''}", {"Connection": "close"})
