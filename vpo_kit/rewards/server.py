"""Any reward behind HTTP: the application that ``vpo reward serve`` runs (extra ``server``).

`vpo_kit.rewards.parts.wire` says what goes over the line.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any

import torch
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ValidationError
from torch import Tensor

from vpo_kit import __version__
from vpo_kit.errors import ModelError, VpoError
from vpo_kit.net import serve
from vpo_kit.rewards.base import Reward, RewardOutput, RewardSpec
from vpo_kit.rewards.parts import wire

LOG = logging.getLogger(__name__)
MAX_HEADER_BYTES = 2**20
MAX_PROPORTION = 8
"""The longer side of a frame over the shorter one, at most: judges scale by the shorter one."""
SIDE = 224
"""Pixels to which many judges enlarge the shorter side of a frame."""
MAX_PIXELS = 2**29
"""The pixels of all frames of a request, at most, once smaller ones are enlarged: some minutes' work for a CPU."""
LIMIT_OPTION = "--max-body-mb"
BEARER = HTTPBearer(auto_error=False, description="what the server printed at its start")
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary"},
                "example": '{"shape": [1, 17, 3, 64, 64], "dtype": "uint8", "fps": 8.0, "prompts": ["a dog"]}\\n...',
            }
        },
    }
}


class Alive(BaseModel):
    status: str = "ok"


class _Service:
    """One reward, one video batch at a time."""

    def __init__(self, reward: Reward, token: str | None, max_body_bytes: int, device: torch.device) -> None:
        self._reward = reward
        self._token = token
        self._limit = max_body_bytes
        self._device = device
        self._about = _about(reward.spec, max_body_bytes)
        self._turn = asyncio.Lock()

    def authorise(self, found: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        """Raises 401 without the token; it runs before a byte of the body is read."""
        given = found.credentials if found else ""
        if self._token is not None and not serve.same(given, self._token):
            raise HTTPException(401, "wrong or no token", {"WWW-Authenticate": "Bearer", "Connection": "close"})

    def health(self) -> Alive:
        """Up and ready to score; needs no token."""
        return Alive()

    def spec(self) -> wire.About:
        """What is served, and in which form it wants its videos."""
        return self._about

    async def score(self, request: Request) -> wire.ScoreReply:
        """Scores of a batch: a line of JSON, then the frames as raw bytes (`vpo_kit.rewards.parts.wire`)."""
        header, video = await self._read(request)
        self._check(header)
        async with self._turn:
            if await request.is_disconnected():  # its client has given up and may already be back in the queue
                raise HTTPException(408, "the client is gone")
            return await run_in_threadpool(self._judge, header, video)

    async def _read(self, request: Request) -> tuple[wire.Header, Tensor]:
        """The request's video. A body over the limit is refused as soon as that shows, without reading on."""
        body, header, start = bytearray(), None, 0
        async for chunk in serve.chunks(request, self._limit, LIMIT_OPTION):
            body += chunk
            if header is None and (start := body.find(b"\n") + 1):
                header = _header(body[:start])
                _check_size(header)
            if header is not None and start + header.num_bytes > self._limit:
                raise serve.too_large(self._limit, LIMIT_OPTION)
            if header is None and len(body) > MAX_HEADER_BYTES:
                raise _refusal("no line of JSON at the start of the body")
        if header is None:
            raise _refusal("no line of JSON at the start of the body")
        try:
            return header, wire.decode(header, body, start)
        except ValueError as error:
            raise _refusal(str(error)) from error

    def _check(self, header: wire.Header) -> None:
        count, frames = header.shape[:2]
        if header.prompts is None and self._reward.spec.needs_prompt:
            raise _refusal(f"{self._reward.spec.name} judges a video by its prompt: prompts are missing")
        if header.prompts is not None and len(header.prompts) != count:
            raise _refusal(f"{len(header.prompts)} prompts for {count} videos")
        for start, end in header.segments or []:
            if not 0 <= start < end <= frames:
                raise _refusal(f"segment [{start}, {end}) is not within {frames} frames")
        if header.segments and not self._reward.spec.per_segment:
            raise _refusal(f"{self._reward.spec.name} does not score segments")

    @torch.no_grad()
    def _judge(self, header: wire.Header, video: Tensor) -> wire.ScoreReply:
        try:
            found = self._reward(video.to(self._device), header.prompts, fps=header.fps, segments=header.segments)
        except VpoError as error:
            raise _refusal(str(error)) from error
        except torch.OutOfMemoryError as error:
            raise HTTPException(503, "out of memory on the server's device: send fewer videos at once") from error
        except Exception as error:  # whatever a plugin raises: its client should read it, and the server go on
            LOG.exception("the reward failed")
            raise _refusal(f"the reward failed: {type(error).__name__}: {error}") from error
        return _finite(found)


def create_app(
    reward: Reward, *, token: str | None, max_body_bytes: int = 256 * 2**20, device: torch.device | None = None
) -> FastAPI:
    """An ASGI application with ``/score``, ``/spec``, ``/health`` and its own description at ``/docs``.

    `token` None lets everybody in who can reach the port; `device` is where `reward` has its weights. Raises
    `ModelError` for a reward whose spec cannot be sent.
    """
    service = _Service(reward, token, max_body_bytes, device or torch.device("cpu"))
    app = FastAPI(title=f"vpo reward server: {reward.spec.name}", version=__version__, redoc_url=None)
    guard: Any = [Depends(service.authorise)]
    app.add_api_route("/health", service.health, methods=["GET"])
    app.add_api_route("/spec", service.spec, methods=["GET"], dependencies=guard)
    app.add_api_route("/score", service.score, methods=["POST"], dependencies=guard, openapi_extra=BODY)
    return app


def _about(spec: RewardSpec, max_body_bytes: int) -> wire.About:
    try:
        return wire.About(
            name=spec.name,
            licence=spec.licence,
            scale=spec.scale,
            source=spec.source,
            per_segment=spec.per_segment,
            needs_prompt=spec.needs_prompt,
            for_training=spec.for_training,
            mean=spec.mean,
            std=spec.std,
            dtypes=["float32", "float16", "uint8"],
            max_body_bytes=max_body_bytes,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ModelError(f"reward {spec.name!r}: its {first['loc'][0]} cannot be served: {first['msg']}") from error


def _header(line: bytearray) -> wire.Header:
    try:
        return wire.Header.model_validate_json(bytes(line))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise _refusal(f"the header's {'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}") from error


def _check_size(header: wire.Header) -> None:
    """Raises 422 for frames of which a few bytes are much work: a row of pixels becomes as high as any frame."""
    count, frames, _, height, width = header.shape
    short, long = sorted((height, width))
    if long > MAX_PROPORTION * short:
        raise _refusal(f"frames of {width} x {height}: the longer side is at most {MAX_PROPORTION} times the other")
    pixels = count * frames * height * width * max(1.0, SIDE / short) ** 2
    if pixels > MAX_PIXELS:
        size = f"{count * frames} frames of {width} x {height}"
        raise _refusal(
            f"{size} are {pixels:.3g} pixels once they are {SIDE} high, and a request has {MAX_PIXELS:.3g} at most: "
            "send fewer videos at once"
        )


def _refusal(text: str) -> HTTPException:
    return HTTPException(422, " ".join(text.split()))


def _finite(found: RewardOutput) -> wire.ScoreReply:
    """The answer. Raises 422 for a value that JSON cannot hold."""
    tensors = {"score": found.score, **found.components}
    if found.segments is not None:
        tensors["segment score"] = found.segments
    for name, values in tensors.items():
        if not torch.isfinite(values).all():
            raise _refusal(f"the reward's {name} is not finite")
    return wire.ScoreReply(
        scores=found.score.float().tolist(),
        segments=None if found.segments is None else found.segments.float().tolist(),
        components={name: values.float().tolist() for name, values in found.components.items()},
    )
