"""Small videos of every kind, made with the bundled ffmpeg. Their grey says what is shown when: one level a frame."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

H264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "4"]
VP9 = ("-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-crf", "4", "-b:v", "0", "-cpu-used", "8")
PASS = ["-fps_mode", "passthrough", "-enc_time_base", "1/90000"]
"""Keeps every frame at its own time."""
PALETTE = ",split[a][b];[a]palettegen=reserve_transparent=0[p];[b][p]paletteuse=dither=none"


def ffmpeg(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    """What one run writes to its output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def levels(count: int) -> list[int]:
    """Greys of `count` frames, each its own."""
    return [round(20 + 210 * i / max(1, count - 1)) for i in range(count)]


def at_times(times: Sequence[float]) -> str:
    """The filter that shows frame i at ``times[i]`` seconds; the first time is 0."""
    terms, first = ["0"], 0
    for step, run in groupby(round((b - a) * 90000) for a, b in pairwise(times)):
        length = len(list(run))
        terms.append(f"clip(N-{first},0,{length})*{step}")
        first += length
    return f"settb=1/90000,setpts='{'+'.join(terms)}'"


def grey(
    path: Path,
    count: int,
    *coding: str,
    fps: float | str = 8,
    times: Sequence[float] | None = None,
    chain: str = "null",
    size: tuple[int, int] = (32, 32),
) -> Path:
    """A video of `count` frames, frame i all of ``levels(count)[i]``; at `times` seconds where they are given."""
    pixels = np.repeat(np.array(levels(count), np.uint8), size[0] * size[1] * 3)
    return write(path, pixels.reshape(count, *size, 3), *coding, fps=fps, times=times, chain=chain)


def write(
    path: Path,
    pixels: NDArray[np.uint8],
    *coding: str,
    fps: float | str = 8,
    times: Sequence[float] | None = None,
    chain: str = "null",
) -> Path:
    """``[F, H, W, 3]`` to a file, by default as H.264."""
    height, width = pixels.shape[1:3]
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    filters = chain if times is None else f"{chain},{at_times(times)}"
    filters += PALETTE if path.suffix == ".gif" else ""
    own = [] if path.suffix == ".gif" else H264
    ffmpeg(*given, "-vf", filters, *([] if times is None else PASS), *(coding or own), path, stdin=pixels.tobytes())
    return path


def piped(path: Path, source: Path, kind: str) -> Path:
    """A copy as a program writes it that cannot go back to fill in the duration."""
    path.write_bytes(ffmpeg("-i", source, "-map", "0:v", "-c", "copy", "-map_metadata", "-1", "-f", kind, "-"))
    return path


def with_sound(path: Path, source: Path, seconds: float, *options: str) -> Path:
    """A copy with `seconds` of a tone beside it; `options` go before the picture."""
    tone = ["-f", "lavfi", "-i", f"sine=d={seconds}"]
    ffmpeg(*options, "-i", source, *tone, "-map", "0", "-map", "1", "-c:v", "copy", "-c:a", "aac", path)
    return path


def shown(frames: Tensor) -> list[float]:
    """The grey in the middle of each frame, of 255."""
    height, width = frames.shape[2] // 2, frames.shape[3] // 2
    return [255 * float(value) for value in frames[:, :, height, width].mean(1)]


def same_greys(frames: Tensor, wanted: list[int]) -> bool:
    greys = shown(frames)
    return len(greys) == len(wanted) and all(abs(a - b) <= 3 for a, b in zip(greys, wanted, strict=True))
