"""Clips to files."""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import torch
from torch import Tensor

from vpo_kit import files
from vpo_kit.errors import DataError


def write_video(path: Path, video: Tensor, fps: float) -> None:
    """Write one clip ``[F, 3, H, W]`` as H.264 (yuv420p, so that every browser plays it); whole or not at all.

    Raises `OutputError` when the folder cannot be written, `DataError` for values that are not finite, which no file
    can hold.
    """
    if not video.isfinite().all():
        raise DataError(f"{path.name} is not written: the video holds values that are not finite")
    frames = (video.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    height, width = frames.shape[1:3]
    with files.beside(path) as partial:
        writer = imageio_ffmpeg.write_frames(
            str(partial),
            (width, height),
            fps=fps,
            codec="libx264",
            macro_block_size=1,
            pix_fmt_out="yuv420p",
            quality=None,
            output_params=["-crf", "12", "-threads", "1"],
        )
        writer.send(None)
        for frame in frames.numpy():
            writer.send(frame)
        writer.close()
