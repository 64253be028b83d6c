"""The state of an installation: versions, devices, codecs, extras, disks, the Hub, and a short run."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from vpo_kit import __version__
from vpo_kit.errors import VpoError

CORE = ("torch", "diffusers", "transformers", "peft", "accelerate", "huggingface-hub")
LITTLE = 2e9
"""Bytes: with less there is no room for a checkpoint of a large model."""


@dataclass(frozen=True)
class Symptom:
    """One thing that was looked at, what was seen, and whether it is as it must be."""

    name: str
    seen: str
    ok: bool = True


def look(here: Path, run: bool = False) -> Iterator[Symptom]:
    """Everything in turn; with `run` also a run of two steps of the embedded model, in a folder that is removed again.

    Nothing is asked from the network. `here` is where runs would be written.
    """
    yield Symptom("vpo-kit", f"{__version__}, Python {sys.version.split()[0]}, {Path(__file__).parent.parent}")
    yield from (_version(name) for name in CORE)
    yield _devices()
    yield _tried("codec", _codec)
    yield from _extras()
    yield _disk("disk, runs", here)
    yield _disk("disk, Hub's cache", _cache())
    yield _hub()
    if run:
        yield _tried("two steps", _two_steps)


def _version(name: str) -> Symptom:
    try:
        return Symptom(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Symptom(name, f"is not installed: pip install {name}", ok=False)


def _devices() -> Symptom:
    cpu = f"{os.cpu_count()} processors, {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        return Symptom("devices", f"no CUDA device, {cpu}")
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return Symptom("devices", ", ".join([*(f"{one.name} ({one.total_memory / 1e9:.0f} GB)" for one in found), cpu]))


def _tried(name: str, what: Callable[[], str]) -> Symptom:
    try:
        return Symptom(name, what())
    except (VpoError, OSError, RuntimeError, ValueError, ImportError) as error:
        return Symptom(name, " ".join(str(error).split()) or type(error).__name__, ok=False)


def _codec() -> str:
    """A clip written and read again."""
    import imageio_ffmpeg

    from vpo_kit.video import read_video, write_video

    clip = torch.linspace(0, 1, 5)[:, None, None, None].expand(5, 3, 32, 32)
    with tempfile.TemporaryDirectory() as folder:
        write_video(Path(folder) / "clip.mp4", clip, 8)
        back = read_video(Path(folder) / "clip.mp4")
    off = float((back.frames - clip).abs().max()) if back.frames.shape == clip.shape else 1.0
    if off > 0.1:
        raise RuntimeError("a clip that was written does not come back as it was")
    return f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}, a clip was written and read"


def _extras() -> Iterator[Symptom]:
    """The optional packages by the extra that installs them; a missing one is no fault."""
    wanted: dict[str, list[str]] = {}
    for line in importlib.metadata.requires("vpo-kit") or ():
        if found := re.fullmatch(r"([\w.-]+)[^;]*;.*extra == ['\"]([\w-]+)['\"].*", line):
            wanted.setdefault(found[2], []).append(found[1])
    for extra, names in sorted(wanted.items()):
        missing = [name for name in names if not _version(name).ok]
        there = ", ".join(f"{name} {_version(name).seen}" for name in names if name not in missing)
        lacks = f"not installed ({', '.join(missing)}): pip install 'vpo-kit[{extra}]'"
        yield Symptom(f"extra {extra}", lacks if missing else there)


def _cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _disk(name: str, folder: Path) -> Symptom:
    """The free space, of the nearest folder that is there, and whether it can be written to."""
    place = next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), Path("/"))
    free = shutil.disk_usage(place).free
    said = f"{folder}: {free / 1e9:.1f} GB free"
    if not os.access(place, os.W_OK):
        return Symptom(name, f"{said}, and it cannot be written to", ok=False)
    return Symptom(name, said if free >= LITTLE else f"{said}, which is little", ok=free >= LITTLE)


def _hub() -> Symptom:
    from huggingface_hub import constants, get_token

    offline = "offline (HF_HUB_OFFLINE): only what is in the cache is found" if constants.HF_HUB_OFFLINE else "online"
    return Symptom("Hub", f"{offline}, {'a token is set' if get_token() else 'no token'}")


def _two_steps() -> str:
    from vpo_kit.library.train import train

    with tempfile.TemporaryDirectory() as folder:
        done = train(
            "online",
            steps=2,
            output=Path(folder) / "run",
            quiet=True,
            batch_size=1,
            sampling={"steps": 2},
            evaluation={"num_prompts": 0},
            selection={"strengths": []},
        )
        if not any(done.lora.glob("*.safetensors")):
            raise RuntimeError("the run left no LoRA")
        return f"the embedded model was trained and its LoRA written, in {done.summary['seconds']:.0f} s"
