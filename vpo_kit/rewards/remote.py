"""A reward in its own process and environment, asked over HTTP: ``remote:http://127.0.0.1:8000``.

The other side is ``vpo reward serve NAME``, or any server that speaks `vpo_kit.rewards.parts.wire`
(examples/reward_server).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit.errors import ConfigError, DataError, ModelError
from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, RewardSpec, Segments
from vpo_kit.rewards.parts import wire
from vpo_kit.rewards.parts.client import Client, Connection

ROOM_FOR_HEADER = 64 * 2**10


class RemoteConfig(Connection):
    """Settings of where the server is, and how videos get there."""

    batch: int = Field(8, ge=1)
    """Videos in a request, fewer where the server's limit on a body asks for it."""
    dtype: wire.Dtype | None = None
    """The data type of the frames on the wire; default: what the server prefers."""


class Remote(Reward):
    """A reward behind HTTP. `spec` of an object is what its server says, under the name ``remote:NAME``."""

    Config: ClassVar[type[RewardConfig]] = RemoteConfig
    argument: ClassVar[str | None] = "url"
    spec: ClassVar[RewardSpec] = RewardSpec(
        name="remote",
        licence="the served reward's",
        source="a server: remote:http://HOST:PORT",
        scale="the served reward's",
        differentiable=False,
        per_segment=True,
        needs_prompt=False,
    )
    config: RemoteConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._client = Client(self.config)
        self._about = self._client.read(wire.About, "/spec")
        self.spec = _spec(self._about)  # type: ignore[misc]  # one server's facts, not the class's
        self._dtype = self.config.dtype or self._about.dtypes[0]
        if self._dtype not in self._about.dtypes:
            known = ", ".join(self._about.dtypes)
            raise ConfigError(f"reward.dtype: the server {self.config.url} takes {known}, not {self._dtype}")

    @classmethod
    def describe(cls, config: Any) -> RewardSpec:
        """What the server says of its reward. Raises `ModelError`."""
        return _spec(Client(config).read(wire.About, "/spec"))

    def forward(
        self, video: Tensor, prompts: Sequence[str] | None = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        """Score as every reward. Raises `ModelError` for a server that is down, refuses or answers nonsense,
        `DataError` for videos that it cannot take and for scores that are not finite.
        """
        asked = segments if self.spec.per_segment else None
        size = self._batch(video)
        found = []
        for start in range(0, len(video), size):
            part = video[start : start + size]
            lines = None if prompts is None else list(prompts[start : start + size])
            header = wire.Header.model_validate(
                {"shape": part.shape, "dtype": self._dtype, "fps": fps, "prompts": lines, "segments": asked}
            )
            scores = self._client.read(wire.ScoreReply, "/score", wire.encode(header, part))
            found.append(_checked(scores, header, self._client.name))
        return _joined(found, video.device)

    def _batch(self, video: Tensor) -> int:
        """How many videos go into one request."""
        limit = self._about.max_body_bytes
        if limit is None:
            return self.config.batch
        one = wire.num_bytes((1, *video.shape[1:]), self._dtype)
        if one > limit - ROOM_FOR_HEADER:
            raise DataError(
                f"one video is {one / 2**20:.0f} MB as {self._dtype}, and the {self._client.name} takes "
                f"{limit / 2**20:.0f} MB: set reward.dtype=uint8, or serve with a larger --max-body-mb"
            )
        return min(self.config.batch, (limit - ROOM_FOR_HEADER) // one)


def _spec(about: wire.About) -> RewardSpec:
    facts = about.model_dump(exclude={"name", "dtypes", "max_body_bytes", "protocol"})
    return RewardSpec(name=f"remote:{about.name}", differentiable=False, **facts)


def _checked(found: wire.ScoreReply, header: wire.Header, server: str) -> RewardOutput:
    """Scores as tensors, after counting them. Raises `ModelError` for a wrong number, `DataError` for NaN."""
    count, parts = header.shape[0], None
    rows = {**found.components, "scores": found.scores}
    short = [name for name, row in rows.items() if len(row) != count]
    if short:
        raise ModelError(f"{server} answers with {len(rows[short[0]])} {short[0]} for {count} videos")
    if header.segments is not None:
        width = len(header.segments)
        if found.segments is None or [len(row) for row in found.segments] != [width] * count:
            raise ModelError(f"{server} answers without {width} segment scores for each of {count} videos")
        parts = torch.tensor(found.segments).reshape(count, width)
    tensors = {name: torch.tensor(row) for name, row in rows.items()}
    for name, values in [*tensors.items(), *([("segments", parts)] if parts is not None else [])]:
        if not torch.isfinite(values).all():
            raise DataError(f"{server} answers with {name} that are not finite: they cannot be used")
    return RewardOutput(tensors.pop("scores"), parts, tensors)


def _joined(parts: list[RewardOutput], device: torch.device) -> RewardOutput:
    """The requests' answers in one, on the video's device."""
    segments = [part.segments for part in parts if part.segments is not None]
    names = [name for name in parts[0].components if all(name in part.components for part in parts)]
    return RewardOutput(
        torch.cat([part.score for part in parts]).to(device),
        torch.cat(segments).to(device) if segments else None,
        {name: torch.cat([part.components[name] for part in parts]).to(device) for name in names},
    )
