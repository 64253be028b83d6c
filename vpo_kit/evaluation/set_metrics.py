"""Metrics of sets of videos: diversity within a prompt, and distances to a folder of reference clips.

Both look at the written files, as any other tool would: so the reference and the samples have gone through a codec
alike, and features of videos that are already there can be added later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vpo_kit import clips, content
from vpo_kit.errors import DataError
from vpo_kit.evaluation import distances
from vpo_kit.evaluation.features import ClipFeatures, diversity, kept
from vpo_kit.evaluation.samples import Results
from vpo_kit.evaluation.statistics import Paired
from vpo_kit.models.settings import Settings
from vpo_kit.video import SUFFIXES, Extent, Window, read_video, read_window

Tick = Callable[[int], None]


@dataclass(frozen=True)
class FeatureFolder:
    """Features of one kind, kept in a folder; `get` gives the extractor when something has to be made."""

    path: Path
    kind: str
    get: Callable[[], ClipFeatures]

    def of_videos(self, evaluation: Results, videos: Path, tick: Tick) -> Tensor:
        """``[N, D]`` of an evaluation's videos, from their files. Raises `DataError`."""

        def make() -> Tensor:
            found = (read_video(videos / file) for file in evaluation.files)
            return torch.cat([self._of(video.frames, video.fps, tick) for video in found])

        return kept(self._folder / f"{evaluation.name}.{_of_what(evaluation)}.safetensors", make)

    def of_reference(self, folder: Path, settings: Settings, tick: Tick) -> Tensor:
        """``[M, D]`` of the first window of each clip below `folder`, at the size, length and fps of the samples;
        shorter clips are left out. Raises `DataError` where fewer than two are long enough.
        """

        names = [path.relative_to(folder).as_posix() for path in reference_files(folder)]
        known = clips.look_through(folder, names)

        def make() -> Tensor:
            extents = ((folder / name, known[name].found) for name in names if name in known)
            windows = (self._window(path, extent, settings, tick) for path, extent in extents)
            found = [clip for clip in windows if clip is not None]
            if len(found) < 2:
                raise DataError(
                    f"--reference: fewer than two clips have {settings.frames} frames at {settings.fps:g} a second"
                )
            return torch.cat(found)

        held = content.key(*(known[name].sha256 for name in names if name in known))
        return kept(self._folder.with_name(f"{self._folder.name}.{held[:16]}.safetensors"), make)

    def _window(self, path: Path, extent: Extent | str, settings: Settings, tick: Tick) -> Tensor | None:
        count, fps = (0, 0.0) if isinstance(extent, str) else extent.windows(settings.frames, settings.fps)
        if count == 0:
            return None
        try:
            clip = read_window(path, Window(0.0, settings.frames, fps), settings.height, settings.width)
        except DataError:
            return None
        return self._of(clip, settings.fps, tick)

    @torch.no_grad()
    def _of(self, clip: Tensor, fps: float, tick: Tick) -> Tensor:
        extractor = self.get()
        device = next((p.device for p in extractor.parameters()), torch.device("cpu"))
        found: Tensor = extractor(clip[None].to(device), fps)
        tick(1)
        return found.float().cpu()

    @property
    def _folder(self) -> Path:
        return self.path / self.kind.replace(":", ".")


def _of_what(evaluation: Results) -> str:
    """What tells the videos of one name apart from those of more prompts."""
    return content.key(evaluation.prompts, evaluation.files, *evaluation.pictures)[:16]


def reference_files(folder: Path) -> list[Path]:
    """All clips below a folder, in order. Raises `DataError`."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: --reference takes a folder of clips")
    files = clips.files(folder)
    if len(files) < 2:
        raise DataError(f"--reference {folder} holds fewer than two clips: {', '.join(sorted(SUFFIXES))} are read")
    return files


def with_diversity(evaluation: Results, features: Tensor) -> Results:
    """The evaluation with `diversity` added."""
    return replace(evaluation, metrics={**evaluation.metrics, "diversity": diversity(features, evaluation.groups)})


def distance_changes(before: Tensor, after: Tensor, reference: Tensor, groups: Sequence[int]) -> dict[str, Paired]:
    """Both distances of two sets with features ``[N, D]`` each."""
    x, y, r = (np.asarray(part, np.float64) for part in (before, after, reference))
    return distances.compare(x, y, r, groups)
