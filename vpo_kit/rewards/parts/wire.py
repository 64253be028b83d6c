"""Videos over HTTP: a line of JSON, then raw frames. Nothing here can run code that a sender chose.

``POST /score`` takes a body of one line of JSON (`Header`, UTF-8, ended by a newline) and the frames of all videos,
C order, little-endian, with nothing between or behind them. The answer is JSON (`ScoreReply`). ``GET /spec`` answers
with JSON (`About`). Both want ``Authorization: Bearer TOKEN`` where the server has a token. An error is a status of
400 or above with ``{"detail": "one line"}``.

Legend: ``B`` videos, ``F`` frames, ``S`` segments. Video is float32 ``[B, F, 3, H, W]`` in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints
from torch import Tensor

Dtype = Literal["float32", "float16", "uint8"]
NUMPY: dict[Dtype, str] = {"float32": "<f4", "float16": "<f2", "uint8": "|u1"}

# They end in tables and pages: one short line, nothing that a terminal would act on.
Line = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]
Name = Annotated[str, StringConstraints(max_length=60, pattern=r"^[\w.:+-]+$")]


class Header(BaseModel):
    """The first line of a request."""

    shape: tuple[PositiveInt, PositiveInt, Literal[3], PositiveInt, PositiveInt]
    """The shape ``[B, F, 3, H, W]``."""
    dtype: Dtype
    """The data type of the frames: floats are in [0, 1], uint8 in 0 to 255."""
    fps: float = Field(gt=0, allow_inf_nan=False)
    prompts: list[str] | None = None
    """The prompts, one for each video."""
    segments: list[tuple[int, int]] | None = None
    """Half-open ranges of frames to be scored as well."""

    @property
    def num_bytes(self) -> int:
        """How many bytes of frames follow the line."""
        return num_bytes(self.shape, self.dtype)


class ScoreReply(BaseModel):
    """The answer to ``POST /score``; higher is better."""

    scores: list[float]
    """The scores ``[B]``."""
    segments: list[list[float]] | None = None
    """The segments' scores ``[B, S]``, where the request had segments and the reward can score them."""
    components: dict[Line, list[float]] = {}
    """Named parts of the score, each ``[B]``."""


class About(BaseModel):
    """The answer to ``GET /spec``: a `RewardSpec` and what the server takes. Only the first three must be there."""

    model_config = ConfigDict(frozen=True)

    name: Name
    licence: Line
    scale: Line
    source: Line = "not said by the server"
    per_segment: bool = False
    needs_prompt: bool = False
    for_training: bool = True
    mean: float = Field(0.0, allow_inf_nan=False)
    std: float = Field(1.0, gt=0, allow_inf_nan=False)
    dtypes: list[Dtype] = Field(["uint8"], min_length=1)
    """What frames may be, the preferred one first."""
    max_body_bytes: PositiveInt | None = None
    protocol: Literal[1] = 1


def num_bytes(shape: Sequence[int], dtype: Dtype) -> int:
    """How many bytes videos of a shape take on the wire."""
    return math.prod(shape) * np.dtype(NUMPY[dtype]).itemsize


def encode(header: Header, video: Tensor) -> bytes:
    """The body of a request with `video` ``[B, F, 3, H, W]`` in [0, 1], of any float dtype, on any device.

    float32 keeps every score as it is; float16 moves a pixel by up to 1/4096, uint8 by up to 1/510.
    """
    frames = video.detach().float().cpu()
    if header.dtype == "uint8":
        frames = frames.clamp(0, 1).mul(255).round()
    raw = frames.numpy().astype(NUMPY[header.dtype], copy=False)
    return header.model_dump_json(exclude_none=True).encode() + b"\n" + raw.tobytes()


def decode(header: Header, body: bytearray, start: int) -> Tensor:
    """The video ``[B, F, 3, H, W]``, float32 in [0, 1], from a body whose frames begin at byte `start`.

    Raises `ValueError` when there are fewer or more bytes than the header says.
    """
    if len(body) - start != header.num_bytes:
        raise ValueError(f"{len(body) - start} bytes of frames, and {header.num_bytes} by the header's shape and dtype")
    raw = np.frombuffer(body, NUMPY[header.dtype], offset=start)
    # a copy: the bytes behind a line of any length are not aligned
    video = torch.from_numpy(raw.astype(np.float32).reshape(header.shape))
    return video / 255 if header.dtype == "uint8" else video
