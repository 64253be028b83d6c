"""What a run learns from: a source of items (prompts, pairs, clips), indexed by their numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch
from torch import Tensor

from vpo_kit import video
from vpo_kit.clips import Clip
from vpo_kit.errors import DataError
from vpo_kit.inputs import Inputs, inputs_of
from vpo_kit.models.base import VideoModel
from vpo_kit.models.cache import DiskCache, latent_facts
from vpo_kit.models.kept import MOST_BYTES, Kept
from vpo_kit.models.settings import Size
from vpo_kit.pairing import store
from vpo_kit.pairing.hashed import Hashed
from vpo_kit.pairing.segments import latent_labels
from vpo_kit.pairing.store import Pair, PairSet
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


class Pairs:
    """The pairs of a set: latents ``first``, ``second``, ``clip`` ``[P, C, T, h, w]``, ``labels`` ``[P, T]`` of latent
    frames, ``label`` ``[P]``, ``motion`` ``[P, 2]`` of both members, 1 where it is not known; and, where one
    is local, ``mask`` ``[P, T, h, w]`` of what differs.

    ``clip`` is the real clip's latent where the set has it, else the winner's (`Pair.has_clip`). With `weights` also
    ``weight`` ``[P]``; `encoded` gives the latents of pairs whose set has none. With `first_frame`, which decodes a
    latent ``[1, C, T, h, w]`` to its first frame, each is made from that of its ``clip``.
    """

    def __init__(
        self,
        path: Path,
        pairs: Sequence[Pair],
        frame_map: Sequence[tuple[int, int]],
        encoded: Callable[[Pair], Mapping[str, Tensor]] | None = None,
        weights: Sequence[float] | None = None,
        first_frame: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.sizes = None
        self._path = path
        self._pairs = pairs
        self._encoded = encoded
        self._weights = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.prompts = [pair.prompt for pair in pairs]
        frames = [None if first_frame is None else self._frame(i, first_frame) for i in range(len(pairs))]
        self.inputs = [Inputs(pair.prompt, frame) for pair, frame in zip(pairs, frames, strict=True)]
        self.names = [pair.id for pair in pairs]
        zeros = [0] * len(frame_map)
        self._labels = torch.tensor(
            [_latent_labels(p, frame_map) if p.labels else zeros for p in pairs], dtype=torch.float32
        )
        self._label = torch.tensor([pair.label or 0 for pair in pairs], dtype=torch.float32)
        moved = [(fmean(p.motion.first), fmean(p.motion.second)) if p.motion else (1.0, 1.0) for p in pairs]
        self._motion = torch.tensor(moved, dtype=torch.float32)

    @property
    def scores(self) -> Tensor:
        """Both members' clip scores ``[N, 2]``, NaN where there are none."""
        nothing = (float("nan"), float("nan"))
        return torch.tensor([(p.scores.first_clip, p.scores.second_clip) if p.scores else nothing for p in self._pairs])

    def tensors(self, indices: Sequence[int]) -> dict[str, Tensor]:
        files = [self._latents(self._pairs[i]) for i in indices]
        winner = ["second" if self._pairs[i].label == -1 else "first" for i in indices]
        clips = [file.get("source", file[name]) for file, name in zip(files, winner, strict=True)]
        masks = [file.get("mask", torch.ones(file["first"].shape[1:])) for file in files]
        weights = {} if self._weights is None else {"weight": self._weights[list(indices)]}
        found = weights | {
            "first": torch.stack([file["first"] for file in files]),
            "second": torch.stack([file["second"] for file in files]),
            "clip": torch.stack(clips),
            "labels": self._labels[list(indices)],
            "label": self._label[list(indices)],
            "motion": self._motion[list(indices)],
        }
        return {**found, "mask": torch.stack(masks)} if any("mask" in file for file in files) else found

    def ahead(self, indices: Sequence[int]) -> None:
        """Nothing: reading stored latents takes no time."""

    def _frame(self, index: int, decode: Callable[[Tensor], Tensor]) -> DecodedFrame:
        pair = self._pairs[index]
        winner = "second" if pair.label == -1 else "first"  # another labeller's may be the other one
        held = pair.sha256.latents or getattr(pair.sha256, winner)
        return DecodedFrame(f"{winner} {held}", lambda: self.tensors([index])["clip"], decode)

    def _latents(self, pair: Pair) -> Mapping[str, Tensor]:
        if pair.latents is not None:
            return store.read_latents(self._path / pair.latents)
        assert self._encoded is not None
        return self._encoded(pair)


def _latent_labels(pair: Pair, frame_map: Sequence[tuple[int, int]]) -> list[int]:
    """A label for each latent frame; one that was given to the whole clip holds however much of it is trained on."""
    assert pair.labels is not None
    if pair.strategy == "imported":
        return [pair.labels[0]] * len(frame_map)
    return latent_labels(pair.labels, pair.segments, frame_map)


@dataclass(frozen=True)
class DecodedFrame:
    """The first frame of a latent, as a picture: `latent` gives ``[1, C, T, h, w]``, `decode` its first frame
    ``[3, H, W]``.
    """

    key: str
    latent: Callable[[], Tensor]
    decode: Callable[[Tensor], Tensor]

    def read(self, height: int, width: int) -> Tensor:
        """The frame; the latent has that size already."""
        return self.decode(self.latent())


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


def usable(
    found: PairSet, shape: Sequence[int], keeps: Callable[[Pair], bool], on_notice: Callable[[str], None]
) -> list[Pair]:
    """The pairs that can be trained on: readable, unchanged, of the model's latent `shape`, and kept by the method.
    Tensors are not read, and files that are as they were when they were last looked at are not hashed again.

    What is left out is named. Raises `DataError` when nothing remains.
    """
    wrong, hashed = list(found.broken), Hashed(found.path)
    pairs = []
    for pair in found.pairs:
        problem = None if pair.latents is None else _latents_problem(found, pair, pair.latents, shape, hashed)
        if problem:
            wrong.append(problem)
        else:
            pairs.append(pair)
    hashed.keep()
    for line in wrong[:5]:
        on_notice(f"left out: {line}")
    if len(wrong) > 5:
        on_notice(f"left out: {len(wrong) - 5} more pairs for such reasons")
    kept = [pair for pair in pairs if keeps(pair)]
    if not kept:
        reason = (
            wrong[0] if not pairs and wrong else "all of its pairs are ties or have no label: vpo label SET labels it"
        )
        raise DataError(f"{found.path} has nothing to learn from: {reason}")
    return kept


def _latents_problem(found: PairSet, pair: Pair, latents: str, shape: Sequence[int], hashed: Hashed) -> str | None:
    if problem := store.problem(found.path, pair, [latents], hashed):
        return problem
    try:
        shapes = store.latent_shapes(found.path / latents)
    except DataError as error:
        return f"{pair.id}: {error}"
    for name in ("first", "second"):
        if name not in shapes:
            return f"{pair.id}: {latents} holds no {name!r}"
        if shapes[name] != tuple(shape):
            made = store.sampling(found.path)
            size = (
                f": {found.path} was made at {made['frames']} frames of {made['width']} x {made['height']}, which "
                "the run takes where sampling sets none"
                if len(made) == len(store.SIZE)
                else ""
            )
            return f"{pair.id}: latents are {shapes[name]}, this model's are {tuple(shape)}{size}"
    return None
