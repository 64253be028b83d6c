"""What sees prompts and pictures is there only while something is encoded: it comes from its files and leaves again."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn

from vpo_kit.models.base import VideoModel

TEXTS, EYES = "text_encoder", "image_encoder"
"""How the names of the pipeline's parts begin that see prompts, and pictures alone."""
Read = Callable[[Sequence[str]], Mapping[str, nn.Module]]


class Encoders:
    """The text and image encoders `names` of `model`, which `read` takes from their files when something is encoded.

    Once loaded they stay until `leave`. With `waits` they are loaded into the machine's memory, for `offload` to copy
    them to the device; `folder` gives the folder of a part's files, None where it is not known; those of the `variant`
    are read.
    """

    def __init__(
        self,
        model: VideoModel,
        names: Sequence[str],
        read: Read,
        folder: Callable[[str], Path | None],
        waits: bool,
        variant: str | None = None,
    ) -> None:
        self.names, self.variant = names, variant
        self.model, self._read, self._folder, self._waits = model, read, folder, waits
        self._yields = False

    def come(self, beginning: str) -> None:
        """Load the parts whose names begin so, where they are not there."""
        pipeline = self.model.pipeline
        missing = [name for name in self.names if name.startswith(beginning) and getattr(pipeline, name) is None]
        if not missing:
            return
        if self._yields and self.model.home is None and self.model.device.type != "cpu":
            self.model.home = self.model.device
            self.model.move_networks(torch.device("cpu"))
            torch.cuda.empty_cache()
        for name, part in self._read(missing).items():
            place = torch.device("cpu") if self._waits else self.model.device
            pipeline.register_modules(**{name: part.requires_grad_(False).eval().to(place)})

    def leave(self) -> None:
        """Give back their memory, on the device and off it."""
        there = [name for name in self.names if getattr(self.model.pipeline, name) is not None]
        if there:
            self.model.pipeline.register_modules(**dict.fromkeys(there))
            gc.collect()
            torch.cuda.empty_cache()

    @contextmanager
    def first(self) -> Iterator[None]:
        """Inside, the networks make room for what comes: on a GPU they wait in the machine's memory until the end."""
        self._yields = True
        try:
            yield
        finally:
            self._yields = False
            if self.model.home is not None:
                self.model.move_networks(self.model.home)
                self.model.home = None

    def files(self, name: str) -> list[list[Any]] | None:
        """What the files of a part are known by without being read: places, sizes and times of change; None where they
        are not on this machine.
        """
        folder = self._folder(name)
        if folder is None or not folder.is_dir():
            return None
        found = []
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            stat = path.stat()
            found.append([str(path.resolve()), path.name, stat.st_size, stat.st_mtime_ns])
        return found


def late(encoders: Encoders) -> None:
    """Let parts that a model was loaded without come when they are needed, as `Encoders` says."""
    model = encoders.model
    model.encoders = encoders

    def with_parts(beginning: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            encoders.come(beginning)
            return function(*args, **kwargs)

        return call

    for method, beginning in (("encode_prompts", TEXTS), ("encode_texts", TEXTS), ("encode_images", EYES)):
        setattr(model, method, with_parts(beginning, getattr(model, method)))


def part_folder(source: str, revision: str | None, name: str) -> Path | None:
    """The folder of a pipeline's part, of a hub id that of its snapshot on this machine, where there is one."""
    if Path(source).is_dir():
        return Path(source) / name
    found = try_to_load_from_cache(source, f"{name}/config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None
