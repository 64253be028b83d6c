"""Make the pairs of a set: resumable, whole pair by whole pair, shared by any number of processes.

Every random number comes from the seed and the item's own number, and the batches are cut the same way each time, so
a set that was killed and went on, or that several processes made, is the same file by file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from vpo_kit import files, formats
from vpo_kit.clips import Clip
from vpo_kit.config import parse_yaml
from vpo_kit.errors import ConfigError, DataError, OutputError
from vpo_kit.models.base import Settings, VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.pairing import segments, store
from vpo_kit.pairing.settings import PairSettings
from vpo_kit.pairing.store import Pair
from vpo_kit.processes import Processes
from vpo_kit.video import write_video

UNCHECKED = ("format", "versions", "skipped")
"""Facts of a set in which the one that goes on with it may differ."""


@dataclass(frozen=True)
class Made:
    """One pair before it is on disk; videos are ``[F, 3, H, W]``, latents ``[C, T, h, w]`` by name."""

    id: str
    prompt: str
    first: Tensor
    second: Tensor
    latents: dict[str, Tensor]
    seeds: tuple[int, int]
    eta: float | None = None
    source: str | None = None
    label: Literal[-1, 1] | None = None
    """Of the clip and all of its segments, where the way in which the pair is made says who wins."""


Outcome = list[Made] | str
"""The pairs of one item, or the reason why there are none."""


@dataclass(frozen=True)
class Task:
    """What a strategy needs: the model, how it samples, encoded prompts on demand, and the set's seed."""

    model: VideoModel
    sampling: Settings
    encode: PromptCache
    settings: PairSettings
    seed: int

    def sources(
        self, clips: Sequence[Clip], batch: Sequence[int]
    ) -> tuple[list[int], Tensor | None, list[tuple[int, Outcome]]]:
        """The items of a batch whose clips can be read, these clips' latents ``[B, C, T, h, w]`` (None for none), and
        the other items, each with its reason.
        """
        items, videos, failed = [], [], list[tuple[int, Outcome]]()
        for item in batch:
            try:
                videos.append(clips[item].read(self.sampling))
                items.append(item)
            except DataError as error:
                failed.append((item, str(error)))
        return items, self.model.encode(torch.stack(videos)) if videos else None, failed


@dataclass(frozen=True)
class Job:
    """What a strategy gives: batches of item numbers, and the function that makes a batch."""

    strategy: str
    batches: Sequence[Sequence[int]]
    make: Callable[[Sequence[int]], Iterable[tuple[int, Outcome]]]


class Folder:
    """A set that is being made: finished items lie in ``.parts``, one small file each, until all are there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = path / ".parts"

    @property
    def finished(self) -> bool:
        return (self.path / "metadata.jsonl").is_file()

    def check(self, facts: dict[str, Any]) -> None:
        """Raises `ConfigError` for a set begun with other settings, `OutputError` for a folder of other things."""
        listing = self.path / "dataset.yaml"
        if not listing.is_file():
            if self.path.exists() and any(self.path.iterdir()):
                raise OutputError(f"{self.path} is not empty and holds no pair set: give another --output")
            return
        try:
            old = parse_yaml(listing.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{listing} cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(old, dict):
            raise DataError(f"{listing} is not a mapping of names to values")
        if not self.finished:
            formats.unchanged(old, listing, "pair set")
        changed = [key for key in facts if key not in UNCHECKED and old.get(key) != facts[key]]
        if changed:
            raise ConfigError(
                f"{self.path} was begun with another {' and '.join(changed)}: give another --output, or the same"
            )

    def start(self, facts: dict[str, Any]) -> None:
        """Write what the set is to be, before its first pair. Raises `OutputError`."""
        if not (self.path / "dataset.yaml").is_file():
            files.write(self.path / "dataset.yaml", yaml.safe_dump(facts, sort_keys=False, allow_unicode=True))

    def missing(self, items: Iterable[int]) -> list[int]:
        """Those that are not made, or of which a file is not what it was when it was written."""
        return [item for item in items if not self._whole(item)]

    def put(self, item: int, outcome: Outcome, task: Task, strategy: str) -> None:
        """Write an item's videos and latents, and only then the small file that says so."""
        if isinstance(outcome, str):
            content: dict[str, Any] = {"skipped": outcome}
        else:
            content = {"pairs": [self._write(made, task, strategy).model_dump(mode="json") for made in outcome]}
        files.write(self._part(item), json.dumps(content))

    def finish(self, items: Sequence[int], facts: dict[str, Any]) -> None:
        """Put the parts together in order, and drop what a killed run has left behind."""
        parts = [json.loads(self._part(item).read_text(encoding="utf-8")) for item in items]
        pairs = [Pair.model_validate(pair) for part in parts for pair in part.get("pairs", ())]
        skipped = [part["skipped"] for part in parts if "skipped" in part]
        if not pairs:
            raise DataError(f"no pair could be made: {skipped[0] if skipped else 'no item'}")
        wanted = {name for pair in pairs for name in pair.files}
        for folder in ("videos", "latents"):
            for path in (self.path / folder).iterdir():
                if f"{folder}/{path.name}" not in wanted:
                    path.unlink()
        store.write(self.path, {**facts, "pairs": len(pairs), "skipped": [*facts["skipped"], *skipped]}, pairs)
        shutil.rmtree(self.parts)

    def _whole(self, item: int) -> bool:
        try:
            part = json.loads(self._part(item).read_text(encoding="utf-8"))
            pairs = [Pair.model_validate(pair) for pair in part.get("pairs", ())]
        except (OSError, ValueError, AttributeError):
            return False
        return all(store.problem(self.path, pair) is None for pair in pairs)

    def _part(self, item: int) -> Path:
        return self.parts / f"{item:06d}.json"

    def _write(self, made: Made, task: Task, strategy: str) -> Pair:
        fps, frames = task.sampling.fps, len(made.first)
        files = (f"videos/{made.id}-first.mp4", f"videos/{made.id}-second.mp4", f"latents/{made.id}.safetensors")
        write_video(self.path / files[0], made.first, fps)
        write_video(self.path / files[1], made.second, fps)
        store.write_latents(self.path / files[2], made.latents)
        length = task.settings.labelling.segment_seconds or segments.default_seconds(frames, fps)
        cut = segments.cut(frames, fps, length)
        known = {"label": made.label, "labels": [made.label] * len(cut), "labeller": strategy} if made.label else {}
        return Pair.model_validate({
            "id": made.id, "prompt": made.prompt, "strategy": strategy, "seeds": made.seeds,
            "eta": made.eta, "source": made.source, "fps": fps, "frames": frames,
            "first_file_name": files[0], "second_file_name": files[1], "latents": files[2],
            "segments": cut, **known, "sha256": store.hashes(self.path, files),
        })  # fmt: skip


def run(
    folder: Folder,
    job: Job,
    task: Task,
    facts: dict[str, Any],
    processes: Processes,
    tick: Callable[[int], None],
) -> None:
    """Make what is missing of the set; returns when all processes are done and the set is whole.

    Raises `DataError` when no pair could be made, `OutputError` when the folder cannot be written.
    """
    items = sorted(item for batch in job.batches for item in batch)
    for batch in processes.share(job.batches):
        missing = set(folder.missing(batch))
        tick(len(batch) - len(missing))
        if not missing:
            continue
        # the whole batch again, not the missing part of it: the last bits of a result depend on the batch
        with torch.no_grad():
            for item, outcome in job.make(batch):
                if item in missing:
                    folder.put(item, outcome, task, job.strategy)
                    tick(1)
    processes.wait()
    if processes.is_main and not folder.finished:
        folder.finish(items, facts)
    processes.wait()


def chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), max(1, size)):
        yield items[start : start + max(1, size)]
