"""Videos that many tests write: each is encoded once for a process, and copied from then on."""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
from pathlib import Path

from torch import Tensor

from vpo_kit.video import write_video


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="kept-videos-"))


def forget() -> None:
    """Remove them. To be called when the tests end, not the process: a worker of xdist runs nothing when it exits."""
    if _folder.cache_info().currsize:
        shutil.rmtree(_folder(), ignore_errors=True)
        _folder.cache_clear()


def write_once(path: Path, video: Tensor, fps: float) -> None:
    """`write_video`, as quick as a copy where the same frames have been written before."""
    facts = f"{tuple(video.shape)} {video.dtype} {float(fps)}".encode()
    kept = _folder() / f"{hashlib.sha256(facts + video.contiguous().numpy().tobytes()).hexdigest()}.mp4"
    if not kept.is_file():
        write_video(kept, video, fps)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(kept, path)
