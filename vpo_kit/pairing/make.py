"""Make the pairs of a set: resumable, whole pair by whole pair, shared by any number of processes.

Every random number comes from the set's seed and from what an item holds, and the batches are cut the same way each
time, so a set that was killed and went on, or that several processes made, is the same file by file. Where clips or
prompts were added, taken away, renamed or put in another order meanwhile, what is made already stays as it is, and each
item that is there now is in the set once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from vpo_kit import files, formats
from vpo_kit.config import parse_yaml
from vpo_kit.errors import ConfigError, DataError, OutputError
from vpo_kit.pairing import segments, store
from vpo_kit.pairing.job import Item, Job, Made, Outcome, Task
from vpo_kit.pairing.records import Pair
from vpo_kit.processes import Processes
from vpo_kit.video import check_finite, write_video

UNCHECKED = ("format", "versions", "skipped")
"""Facts of a set in which the one that goes on with it may differ."""


class Folder:
    """A set that is being made. Until all items are there they lie in ``.parts`` under their keys, each with videos,
    latents and a small file that says so; then they get the numbers of their places.
    """

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
            if not files.bare(self.path):
                raise OutputError(f"{self.path} is not empty and holds no pair set: give another --output")
            return
        try:
            old = parse_yaml(listing.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{listing} cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(old, dict):
            raise DataError(f"{listing} is not a mapping of names to values")
        if not self.finished:
            formats.unchanged(old, listing, "pair set", formats.SETS)
        changed = [key for key in facts if key not in UNCHECKED and old.get(key) != facts[key]]
        if changed:
            raise ConfigError(
                f"{self.path} was begun with another {' and '.join(changed)}: give another --output, or the same"
            )

    def start(self, facts: dict[str, Any]) -> None:
        """Write what the set is to be, before its first pair. Raises `OutputError`."""
        if not (self.path / "dataset.yaml").is_file():
            files.write(self.path / "dataset.yaml", yaml.safe_dump(facts, sort_keys=False, allow_unicode=True))

    def missing(self, items: Iterable[Item]) -> list[Item]:
        """The items that are not made, or of which a file is not what it was when it was written."""
        return [item for item in items if not self._whole(item)]

    def put(self, item: Item, outcome: Outcome, task: Task, strategy: str) -> None:
        """Write an item's videos and latents, and only then the small file that says so."""
        if isinstance(outcome, str):
            content: dict[str, Any] = {"skipped": outcome}
        else:
            content = {"pairs": [self._write(item, made, task, strategy).model_dump(mode="json") for made in outcome]}
        files.write(self._part(item), json.dumps(content))

    def finish(self, items: Sequence[Item], facts: dict[str, Any]) -> None:
        """Put the parts together in the order of `items`; what a killed run has left behind goes.

        Raises `DataError` where no item gave a pair.
        """
        found: list[tuple[Pair, Pair]] = []
        skipped: list[str] = []
        for number, item in enumerate(items):
            part = json.loads(self._part(item).read_text(encoding="utf-8"))
            skipped += [part["skipped"]] if "skipped" in part else []
            for made in map(Pair.model_validate, part.get("pairs", ())):
                pair = store.renamed(made, f"{number:06d}{made.id.removeprefix(item.key)}")
                found.append((made, pair.model_copy(update={"source": item.source})))
        if not found:
            raise DataError(f"no pair could be made: {skipped[0] if skipped else 'no item'}")
        for folder in ("videos", "latents"):
            files.remove(self.path / folder)  # of one that was killed here
        for made, pair in found:
            for old, new in zip(made.files, pair.files, strict=True):
                files.link(self.parts / old, self.path / new)
        for folder in ("videos", "latents"):
            files.sync_folder(self.path / folder)
        pairs = [pair for _, pair in found]
        store.write(self.path, {**facts, "pairs": len(pairs), "skipped": [*facts["skipped"], *skipped]}, pairs)
        self.tidy()

    def tidy(self) -> None:
        """Drop the parts of a set that is whole."""
        shutil.rmtree(self.parts, ignore_errors=True)

    def _whole(self, item: Item) -> bool:
        try:
            part = json.loads(self._part(item).read_text(encoding="utf-8"))
            pairs = [Pair.model_validate(pair) for pair in part.get("pairs", ())]
        except (OSError, ValueError, AttributeError):
            return False
        return all(store.problem(self.parts, pair) is None for pair in pairs)

    def _part(self, item: Item) -> Path:
        return self.parts / f"{item.key}.json"

    def _write(self, item: Item, made: Made, task: Task, strategy: str) -> Pair:
        name, fps, frames = f"{item.key}{made.mark}", task.sampling.fps, len(made.first)
        names = (f"videos/{name}-first.mp4", f"videos/{name}-second.mp4", f"latents/{name}.safetensors")
        for video in (made.first, made.second):
            check_finite(video[None], [made.prompt])
        write_video(self.parts / names[0], made.first, fps)
        write_video(self.parts / names[1], made.second, fps)
        store.write_latents(self.parts / names[2], made.latents)
        length = task.settings.labelling.get("segment_seconds") or segments.default_seconds(frames, fps)
        cut = segments.cut(frames, fps, length)
        known = {"label": made.label, "labels": [made.label] * len(cut), "labeller": strategy} if made.label else {}
        return Pair.model_validate(
            {
                "id": name,
                "prompt": made.prompt,
                "strategy": strategy,
                "seeds": made.seeds,
                "eta": made.eta,
                "source": item.source,
                "fps": fps,
                "frames": frames,
                "first_file_name": names[0],
                "second_file_name": names[1],
                "latents": names[2],
                "segments": cut,
                **known,
                "sha256": store.hashes(self.parts, names),
            }
        )


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
    for batch in processes.share(job.batches):
        missing = {item.key for item in folder.missing(job.items[number] for number in batch)}
        tick(len(batch) - len(missing))
        if not missing:
            continue
        # the whole batch again, not the missing part of it: the last bits of a result depend on the batch
        with torch.no_grad():
            for number, outcome in job.make(batch):
                if job.items[number].key in missing:
                    folder.put(job.items[number], outcome, task, job.strategy)
                    tick(1)
    processes.wait()
    if processes.is_main and not folder.finished:
        folder.finish(job.items, facts)
    processes.wait()
