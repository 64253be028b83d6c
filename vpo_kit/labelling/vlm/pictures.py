"""The frames of a clip that a model is shown, and in what form: JPEG, small enough, with the second it stands at.

Legend: ``F`` frames; video ``[F, 3, H, W]`` in [0, 1].
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vpo_kit.errors import DataError
from vpo_kit.labelling.vlm.settings import Vlm
from vpo_kit.pairing.records import Motion, Pair
from vpo_kit.pairing.segments import Range
from vpo_kit.video import motion, read_video


@dataclass(frozen=True)
class Picture:
    """A frame as the model gets it; `seconds` count from the start of its segment."""

    seconds: float
    jpeg: bytes


@dataclass(frozen=True)
class PairPictures:
    """Both members of a pair, segment by segment, and how much they move."""

    first: list[list[Picture]]
    second: list[list[Picture]]
    motion: Motion


def read(folder: Path, pair: Pair, settings: Vlm) -> PairPictures:
    """Decode a pair's videos; only the JPEGs are kept. Raises `DataError`."""
    shown, moved = [], []
    for member in pair.videos:
        video = read_video(folder / member.file_name).frames
        if len(video) != member.frames:
            raise DataError(f"{member.file_name} has {len(video)} frames, not {member.frames}")
        shown.append([pictures(video, segment, member.fps, settings) for segment in member.segments])
        moved.append([float(motion(video[None, start:end])) for start, end in member.segments])
    return PairPictures(shown[0], shown[1], Motion(first=moved[0], second=moved[1]))


def pictures(video: Tensor, segment: Range, fps: float, settings: Vlm) -> list[Picture]:
    """The frames of a segment that are shown, as JPEGs of at most ``settings.max_pixels`` pixels."""
    frames = frames_shown(segment, fps, settings.fps)
    return [Picture((frame - segment[0]) / fps, jpeg(video[frame], settings)) for frame in frames]


def frames_shown(segment: Range, fps: float, shown_fps: float) -> Sequence[int]:
    """Numbers of the frames of a segment that are shown: `shown_fps` a second from its first one on, or all."""
    start, end = segment
    step = max(1.0, fps / shown_fps)
    count = max(1, round((end - start) / step))
    return [start + int(i * step + 1e-6) for i in range(count)]


def jpeg(frame: Tensor, settings: Vlm) -> bytes:
    """A frame ``[3, H, W]`` in [0, 1] as a JPEG file."""
    values = (frame.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    image = Image.fromarray(values.numpy())
    size = scaled(image.width, image.height, settings.max_pixels)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=settings.jpeg_quality)
    return file.getvalue()


def scaled(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """Width and height within `max_pixels`, in the same proportion."""
    scale = min(1.0, math.sqrt(max_pixels / (width * height)))
    return max(1, int(width * scale)), max(1, int(height * scale))
