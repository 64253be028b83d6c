"""Read and write clips with ffmpeg, and the one number about a clip that every method logs.

Video is float32 ``[..., F, 3, H, W]`` in [0, 1].
"""

from __future__ import annotations

import warnings
from contextlib import closing
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch
from torch import Tensor

from vpo_kit.errors import DataError, OutputError


def write_video(path: Path, video: Tensor, fps: float) -> None:
    """Write one clip ``[F, 3, H, W]`` as H.264 (yuv420p, so that every browser plays it); whole or not at all.

    Raises `OutputError` when the folder cannot be written.
    """
    frames = (video.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    partial = path.with_suffix(".part.mp4")
    height, width = frames.shape[1:3]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = imageio_ffmpeg.write_frames(
            str(partial), (width, height), fps=fps, codec="libx264", macro_block_size=1,
            pix_fmt_out="yuv420p", quality=None, output_params=["-crf", "12", "-threads", "1"],
        )  # fmt: skip
        writer.send(None)
        for frame in frames.numpy():
            writer.send(frame)
        writer.close()
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def read_video(path: Path) -> tuple[Tensor, float]:
    """All frames of a clip as ``[F, 3, H, W]`` and its frames a second. Raises `DataError`."""
    try:
        with warnings.catch_warnings(), closing(imageio_ffmpeg.read_frames(str(path))) as reader:
            warnings.simplefilter("ignore", ResourceWarning)  # imageio-ffmpeg leaves its pipes to the collector
            about = next(reader)
            width, height = about["size"]
            frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    except (OSError, RuntimeError, ValueError, KeyError, StopIteration) as error:
        raise DataError(f"{path} cannot be decoded as a video") from error
    if not frames:
        raise DataError(f"{path} holds no frames")
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255, float(about["fps"])


def straight_through_clamp(video: Tensor) -> Tensor:
    """Clamp to [0, 1] with the gradient of the identity: a clamp would silence every saturated pixel."""
    fixed = video.detach()
    return video + (fixed.clamp(0, 1) - fixed)


def motion(video: Tensor) -> Tensor:
    """How much a clip moves: mean absolute change between frames, median over time; ``[B, F, ...]`` to ``[B]``.

    The median keeps a flicker or a cut of a few frames from passing for motion; 0 is a still picture.
    """
    if video.shape[1] < 2:
        return video.new_zeros(len(video))
    return video.diff(dim=1).abs().flatten(2).mean(2).median(1).values
