"""What a run learns from: a source of items (prompts, pairs, clips), indexed by their numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor

from vpo_kit import video
from vpo_kit.clips import Clip
from vpo_kit.inputs import Inputs, inputs_of
from vpo_kit.models.base import VideoModel
from vpo_kit.models.cache import DiskCache, latent_facts
from vpo_kit.models.kept import MOST_BYTES, Kept
from vpo_kit.models.settings import Size
from vpo_kit.training import ratings as rated


class Source(Protocol):
    """Items by number: their prompts, what their videos are made from, and the tensors that a batch of them has."""

    @property
    def prompts(self) -> Sequence[str]: ...

    @property
    def inputs(self) -> Sequence[str | Inputs]:
        """Each item's prompt, with the pictures that it has."""

    @property
    def names(self) -> Sequence[str]:
        """What the items are called where something is wrong with one."""

    @property
    def sizes(self) -> Sequence[Size] | None:
        """The shape of each item's video, or None where all have that of the run."""

    def tensors(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Named tensors with `indices`, whose videos are of one shape, along their first dimension, on the CPU."""

    def ahead(self, indices: Sequence[int]) -> None:
        """Be told that the tensors of these items are asked for next, so that files may be read meanwhile."""


@dataclass(frozen=True)
class Prompts:
    """Prompts alone, or with pictures."""

    inputs: Sequence[str | Inputs]
    sizes: Sequence[Size] | None = None

    @property
    def prompts(self) -> Sequence[str]:
        """The prompts without their pictures."""
        return [inputs_of(item).prompt for item in self.inputs]

    @property
    def names(self) -> Sequence[str]:
        """The prompts' names: their numbers, from 1 on."""
        return [str(i + 1) for i in range(len(self.inputs))]

    def tensors(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return {}

    def ahead(self, indices: Sequence[int]) -> None:
        """Nothing is read."""


class Encoder:
    """Latents ``[C, T, h, w]`` of clips; with `disk` also for later runs."""

    def __init__(self, model: VideoModel, disk: DiskCache | None = None) -> None:
        self._model = model
        self._disk = disk

    def __call__(self, clip: Clip, read: Callable[[], Tensor] | None = None) -> Tensor:
        """The latent of `clip`, whose video `read` gives where it is read elsewhere. Raises `DataError`."""
        if self._disk is None:
            return self._encode(clip, read)
        return self._disk.get("latents", self._of(clip), lambda: {"clip": self._encode(clip, read)})["clip"]

    def holds(self, clip: Clip) -> bool:
        """Whether the latent is on disk, so that the video need not be read."""
        return self._disk is not None and self._disk.holds("latents", self._of(clip))

    @torch.no_grad()
    def _encode(self, clip: Clip, read: Callable[[], Tensor] | None) -> Tensor:
        # one by one: in a batch the last bits would depend on the neighbours
        return self._model.encode((read or clip.read)()[None])[0].cpu()

    def _of(self, clip: Clip) -> dict[str, Any]:
        window = clip.window
        where = [window.start, window.frames, window.fps, clip.height, clip.width]
        return {**self._facts, "file": clip.sha256, "window": where}

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return {**latent_facts(self._model), "reader": video.version()}


class ClipSource:
    """Real clips, encoded when they are first needed, of which up to `most_bytes` bytes are kept: ``clip``
    ``[B, C, T, h, w]``. With `ratings`, one for each clip, also what `ratings.tensors` makes of them. With
    `first_frame` each is made from its own first frame. The videos that come next are read by threads of their own,
    while others are encoded and trained on.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        encode: Encoder,
        ratings: Sequence[float] | None = None,
        *,
        first_frame: bool = False,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._clips = clips
        self._encode = encode
        self._rated = {} if ratings is None else rated.tensors(ratings, [clip.prompt for clip in clips])
        self._kept = Kept(most_bytes)
        self._reading: dict[int, Future[Tensor]] = {}
        self.prompts = [clip.prompt for clip in clips]
        self.inputs = [clip.inputs if first_frame else clip.prompt for clip in clips]
        self.names = [clip.name for clip in clips]
        self.sizes = [clip.size for clip in clips]

    def tensors(self, indices: Sequence[int]) -> dict[str, Tensor]:
        found = [self._kept.get(i, partial(self._clip, i))["clip"] for i in indices]
        own = {name: values[list(indices)] for name, values in self._rated.items()}
        return {"clip": torch.stack(found), **own}

    def ahead(self, indices: Sequence[int]) -> None:
        """Begin to read the videos of those whose latents are nowhere yet; what was begun for others is let go."""
        wanted = [i for i in indices if i not in self._kept and not self._encode.holds(self._clips[i])]
        for i in self._reading.keys() - set(wanted):
            self._reading.pop(i).cancel()
        for i in wanted:
            if i not in self._reading:
                self._reading[i] = self._readers.submit(self._clips[i].read)

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        """Threads that wait for ffmpeg, one for each core."""
        return ThreadPoolExecutor(os.cpu_count() or 1)

    def _clip(self, index: int) -> dict[str, Tensor]:
        begun = self._reading.pop(index, None)
        return {"clip": self._encode(self._clips[index], None if begun is None else begun.result)}
