"""What a run learns from: a source of items (prompts, pairs, clips), and the order in which they come.

A source is indexed by item numbers; the order depends on the seed alone, not on the number of processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vpo_kit.errors import DataError
from vpo_kit.methods.base import Batch
from vpo_kit.models.base import Settings, VideoModel
from vpo_kit.models.cache import DiskCache, latent_facts
from vpo_kit.models.encoding import PromptCache
from vpo_kit.pairing import store
from vpo_kit.pairing.arrange import held_out
from vpo_kit.pairing.clips import Clip
from vpo_kit.pairing.segments import latent_labels
from vpo_kit.pairing.store import Pair, PairSet
from vpo_kit.processes import Processes
from vpo_kit.sampler import derive_seed


class Source(Protocol):
    """Items by number: their prompts, and the tensors that a batch of them has."""

    @property
    def prompts(self) -> Sequence[str]: ...

    @property
    def names(self) -> Sequence[str]:
        """What the items are called where something is wrong with one."""

    def tensors(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Named tensors with `indices` along their first dimension, on the CPU."""


@dataclass(frozen=True)
class Prompts:
    """Prompts alone."""

    prompts: Sequence[str]

    @property
    def names(self) -> Sequence[str]:
        """Their numbers, from 1 on."""
        return [str(i + 1) for i in range(len(self.prompts))]

    def tensors(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return {}


class Pairs:
    """The pairs of a set: latents ``first``, ``second``, ``clip`` ``[P, C, T, h, w]``, ``labels`` ``[P, T]`` of latent
    frames, ``label`` ``[P]``.

    ``clip`` is the real clip's latent where the set has it, else the winner's.
    """

    def __init__(self, path: Path, pairs: Sequence[Pair], frame_map: Sequence[tuple[int, int]]) -> None:
        self._path = path
        self._pairs = pairs
        self.prompts = [pair.prompt for pair in pairs]
        self.names = [pair.id for pair in pairs]
        zeros = [0] * len(frame_map)
        self._labels = torch.tensor(
            [latent_labels(p.labels, p.segments, frame_map) if p.labels else zeros for p in pairs], dtype=torch.float32
        )
        self._label = torch.tensor([pair.label or 0 for pair in pairs], dtype=torch.float32)

    @property
    def scores(self) -> Tensor:
        """Both members' clip scores ``[N, 2]``, NaN where there are none."""
        nothing = (float("nan"), float("nan"))
        return torch.tensor([(p.scores.first_clip, p.scores.second_clip) if p.scores else nothing for p in self._pairs])

    def tensors(self, indices: Sequence[int]) -> dict[str, Tensor]:
        files = [store.read_latents(self._path / self._pairs[i].latents) for i in indices]
        winner = ["second" if self._pairs[i].label == -1 else "first" for i in indices]
        clips = [file.get("source", file[name]) for file, name in zip(files, winner, strict=True)]
        return {
            "first": torch.stack([file["first"] for file in files]),
            "second": torch.stack([file["second"] for file in files]),
            "clip": torch.stack(clips),
            "labels": self._labels[list(indices)],
            "label": self._label[list(indices)],
        }


class Clips:
    """Real clips, encoded when they are first needed and then kept: ``clip`` ``[B, C, T, h, w]``; with `disk` also for
    later runs.
    """

    def __init__(
        self, model: VideoModel, clips: Sequence[Clip], settings: Settings, disk: DiskCache | None = None
    ) -> None:
        self._model = model
        self._clips = clips
        self._settings = settings
        self._disk = disk
        self._known: dict[int, Tensor] = {}
        self._hashes: dict[Path, str] = {}
        self.prompts = [clip.prompt for clip in clips]
        self.names = [clip.name for clip in clips]

    def tensors(self, indices: Sequence[int]) -> dict[str, Tensor]:
        for i in indices:
            if i not in self._known:
                self._known[i] = self._find(self._clips[i])
        return {"clip": torch.stack([self._known[i] for i in indices])}

    def _find(self, clip: Clip) -> Tensor:
        if self._disk is None:
            return self._encode(clip)
        if clip.path not in self._hashes:
            self._hashes[clip.path] = _file_hash(clip.path)
        window, settings = clip.window, self._settings
        where = [window.start, window.frames, window.fps, settings.height, settings.width]
        facts = {**self._facts, "file": self._hashes[clip.path], "window": where}
        return self._disk.get("latents", facts, lambda: {"clip": self._encode(clip)})["clip"]

    def _encode(self, clip: Clip) -> Tensor:
        return self._model.encode(clip.read(self._settings)[None])[0].cpu()

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return {**latent_facts(self._model), "reader": version("imageio-ffmpeg")}


def usable(
    found: PairSet, shape: Sequence[int], keeps: Callable[[Pair], bool], on_notice: Callable[[str], None]
) -> list[Pair]:
    """The pairs that can be trained on: readable, unchanged, of the model's latent `shape`, and kept by the method.

    What is left out is named. Raises `DataError` when nothing remains.
    """
    wrong = list(found.broken)
    pairs = []
    for pair in found.pairs:
        problem = store.problem(found.path, pair, [pair.latents]) or _shape_problem(found, pair, shape)
        if problem:
            wrong.append(problem)
        else:
            pairs.append(pair)
    for line in wrong[:5]:
        on_notice(f"left out: {line}")
    if len(wrong) > 5:
        on_notice(f"left out: {len(wrong) - 5} more (vpo pair check {found.path} names them all)")
    kept = [pair for pair in pairs if keeps(pair)]
    if not kept:
        reason = (
            wrong[0] if not pairs and wrong else "all of its pairs are ties or have no label: vpo label SET labels it"
        )
        raise DataError(f"{found.path} has nothing to learn from: {reason}")
    return kept


def split(source: Source, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Item numbers for training and held out: whole prompts, about `share` of the items, at least one of each side."""
    if share == 0 or len(set(source.prompts)) < 2:
        return list(range(len(source.prompts))), []
    held = held_out(source.prompts, share, seed)
    sides = [prompt in held for prompt in source.prompts]
    return [i for i, side in enumerate(sides) if not side], [i for i, side in enumerate(sides) if side]


class Stream:
    """Batches of a source in shuffled passes: batch ``i`` depends on the seed and ``i`` alone."""

    def __init__(
        self, source: Source, indices: Sequence[int], batch_size: int, seed: int, encode: PromptCache, part: Processes
    ) -> None:
        self._source = source
        self._indices = indices
        self._size = batch_size
        self._seed = seed
        self._encode = encode
        self._part = part
        self._order: tuple[int, list[int]] | None = None

    def batch(self, number: int, step: int) -> Batch:
        """This process's part of the global batch `number`."""
        positions = self._part.share(range(self._size))
        visits = [(number * self._size + position) // len(self._indices) for position in positions]
        indices = [self._at(number * self._size + position) for position in positions]
        return self._make(indices, step, positions, visits)

    def names(self, indices: Sequence[int]) -> str:
        """What items are called, for a message."""
        shown = ", ".join(self._source.names[i] for i in indices[:8])
        return f"{shown} and {len(indices) - 8} more" if len(indices) > 8 else shown

    def in_order(self) -> Iterator[Batch]:
        """Every item once, in batches that are the same each time; this process's share of them.

        Every process gets the same number of batches: one whose share ends before the others' gets a filler.
        """
        share = self._part.share(range(len(self._indices)))
        size = max(1, self._size // self._part.count)
        for start in range(0, -(-len(self._indices) // self._part.count), size):
            positions = share[start : start + size] or [0]
            batch = self._make([self._indices[p] for p in positions], 0, positions, [0] * len(positions))
            yield replace(batch, filler=start >= len(share))

    def _at(self, position: int) -> int:
        visit, place = divmod(position, len(self._indices))
        if self._order is None or self._order[0] != visit:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", visit))
            self._order = visit, torch.randperm(len(self._indices), generator=generator).tolist()
        return self._indices[self._order[1][place]]

    def _make(self, indices: Sequence[int], step: int, positions: Sequence[int], visits: Sequence[int]) -> Batch:
        prompts = [self._source.prompts[i] for i in indices]
        conditions = self._encode(prompts)
        device = next(iter(conditions.tensors.values())).device
        tensors = {name: value.to(device) for name, value in self._source.tensors(indices).items()}
        return Batch(step, prompts, conditions, positions, indices, visits, tensors)


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _shape_problem(found: PairSet, pair: Pair, shape: Sequence[int]) -> str | None:
    try:
        tensors = store.read_latents(found.path / pair.latents)
    except DataError as error:
        return f"{pair.id}: {error}"
    for name in ("first", "second"):
        if name not in tensors:
            return f"{pair.id}: {pair.latents} holds no {name!r}"
        if tuple(tensors[name].shape) != tuple(shape):
            return f"{pair.id}: latents are {tuple(tensors[name].shape)}, this model's are {tuple(shape)}"
    return None
