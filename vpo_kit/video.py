"""Read and write clips with ffmpeg, and the one number about a clip that every method logs.

Video is float32 ``[..., F, 3, H, W]`` in [0, 1].
"""

from __future__ import annotations

import re
import subprocess
import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch
from torch import Tensor

from vpo_kit import files
from vpo_kit.errors import DataError

SUFFIXES = frozenset({".mp4", ".webm", ".gif", ".mov", ".mkv"})


@dataclass(frozen=True)
class Window:
    """A part of a video file: `frames` frames at `fps` frames a second from `start` seconds on."""

    start: float
    frames: int
    fps: float


def write_video(path: Path, video: Tensor, fps: float) -> None:
    """Write one clip ``[F, 3, H, W]`` as H.264 (yuv420p, so that every browser plays it); whole or not at all.

    Raises `OutputError` when the folder cannot be written.
    """
    frames = (video.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    height, width = frames.shape[1:3]
    with files.beside(path) as partial:
        writer = imageio_ffmpeg.write_frames(
            str(partial), (width, height), fps=fps, codec="libx264", macro_block_size=1,
            pix_fmt_out="yuv420p", quality=None, output_params=["-crf", "12", "-threads", "1"],
        )  # fmt: skip
        writer.send(None)
        for frame in frames.numpy():
            writer.send(frame)
        writer.close()


def read_video(path: Path) -> tuple[Tensor, float]:
    """All frames of a clip as ``[F, 3, H, W]`` and its frames a second. Raises `DataError`."""
    with warnings.catch_warnings():
        # imageio-ffmpeg leaves its pipes to the collector, which an exception would keep waiting: none may leave here
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with closing(imageio_ffmpeg.read_frames(str(path))) as reader:
                about = next(reader)
                frames = b"".join(reader)
        except (OSError, RuntimeError, ValueError, KeyError, StopIteration):
            about = None
    if about is None:
        raise DataError(f"{path} cannot be decoded as a video")
    if not frames:
        raise DataError(f"{path} holds no frames")
    width, height = about["size"]
    return _video(frames, height, width), float(about["fps"])


def read_window(path: Path, window: Window, height: int, width: int) -> Tensor:
    """A window of a clip as ``[frames, 3, height, width]``: resampled in time, resized to cover, cropped to the centre.

    Raises `DataError` when the file does not decode or ends before the window does.
    """
    # a little early: ffmpeg drops the frame that lies on the seek point when rounding puts it just before
    seek = ["-ss", f"{max(0.0, window.start - 1e-3):.6f}"] if window.start else []
    picture = f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=area,crop={width}:{height}"
    chain = ["-vf", f"setpts=PTS-STARTPTS,fps={window.fps}:round=up,{picture}", "-frames:v", str(window.frames)]
    done = _ffmpeg(*seek, "-i", str(path), "-pix_fmt", "rgb24", "-vcodec", "rawvideo", "-f", "image2pipe", *chain, "-")
    if done.returncode and not done.stdout:
        raise DataError(f"{path} cannot be decoded as a video")
    count = len(done.stdout) // (height * width * 3)
    if count < window.frames:
        raise DataError(f"{path} ends after {count} of {window.frames} frames from {window.start:.2f} s on")
    return _video(done.stdout, height, width)


def seconds(path: Path) -> float:
    """How long a video says it is, 0 where it does not; nothing is decoded. Raises `DataError`."""
    said = _ffmpeg("-i", str(path)).stderr.decode(errors="replace")
    if not re.search(r"^ *Stream #.*: Video:", said, re.MULTILINE):
        raise DataError(f"{path} cannot be decoded as a video")
    found = re.search(r"^ *Duration: (\d+):(\d+):(\d+(?:\.\d+)?)", said, re.MULTILINE)
    hours, minutes, rest = map(float, found.groups()) if found else (0.0, 0.0, 0.0)
    return 3600 * hours + 60 * minutes + rest


def _ffmpeg(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """One run to its end. imageio-ffmpeg's reader waits in steps of 10 ms, several times a clip."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _video(frames: bytes, height: int, width: int) -> Tensor:
    """``[F, 3, H, W]`` from pixels in the order of ffmpeg."""
    pixels = np.frombuffer(frames, np.uint8).reshape(-1, height, width, 3)
    return torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float() / 255


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
