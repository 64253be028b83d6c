"""What a strategy gives to the maker of a set: its items, which of them are made together, and what comes of one.

An item is known by what is in it (`vpo_kit.content`): its seeds, its place in the batches and its files while a set is
being made follow from that, so that a folder or a prompt file may change between a kill and what goes on after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vpo_kit import content
from vpo_kit.clips import Clip
from vpo_kit.errors import DataError
from vpo_kit.inputs import Inputs
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.settings import Settings
from vpo_kit.pairing.settings import PairSettings


@dataclass(frozen=True)
class Item:
    """What pairs are made of: one prompt, or one clip for one of its pairs; `source` names the clip."""

    key: str
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Made:
    """One pair before it is on disk; videos are ``[F, 3, H, W]``, latents ``[C, T, h, w]`` by name."""

    prompt: str
    first: Tensor
    second: Tensor
    latents: dict[str, Tensor]
    seeds: tuple[int, int]
    eta: float | None = None
    mark: str = ""
    """What tells it from the other pairs of its item, for its id."""
    label: Literal[-1, 1] | None = None
    """The label of the clip and all of its segments, where the way in which the pair is made says who wins."""


Outcome = list[Made] | str
"""The pairs of one item, or the reason why there are none."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a strategy needs: the model, how it samples, encoded prompts on demand, and the set's seed."""

    model: VideoModel
    sampling: Settings
    encode: PromptCache
    settings: PairSettings
    seed: int

    def inputs(self, clip: Clip) -> str | Inputs:
        """What a video like a clip is made from: its caption, with its own first frame for a model that needs one."""
        needed = "image" in self.model.inputs and not self.model.image_optional
        return clip.inputs if needed else clip.prompt

    def sources(
        self, clips: Sequence[Clip], batch: Sequence[int]
    ) -> tuple[list[int], Tensor | None, list[tuple[int, Outcome]]]:
        """The items of a batch whose clips can be read, these clips' latents ``[B, C, T, h, w]`` (None for none), and
        the other items, each with its reason.
        """
        items, videos, failed = [], [], list[tuple[int, Outcome]]()
        for item in batch:
            try:
                videos.append(clips[item].read())
                items.append(item)
            except DataError as error:
                failed.append((item, str(error)))
        return items, self.model.encode(torch.stack(videos)) if videos else None, failed


@dataclass(frozen=True)
class Job:
    """What a strategy gives: the items in the order of their data, batches of their numbers, and the function that
    makes a batch.
    """

    strategy: str
    items: Sequence[Item]
    batches: Sequence[Sequence[int]]
    make: Callable[[Sequence[int]], Iterable[tuple[int, Outcome]]]


def items_of(clips: Sequence[Clip], each: int = 1) -> list[Item]:
    """`each` items for every clip, side by side."""
    keys = content.distinct(clip.key for clip in clips)
    return [Item(content.key(key, i), clip.name) for clip, key in zip(clips, keys, strict=True) for i in range(each)]


def batches(items: Sequence[Item], size: int, numbers: Iterable[int] | None = None) -> Iterator[Sequence[int]]:
    """Numbers of items (by default all) that are made together, in the order of the keys: the same whatever the order
    of the data.
    """
    found = sorted(range(len(items)) if numbers is None else numbers, key=lambda number: items[number].key)
    for start in range(0, len(found), max(1, size)):
        yield found[start : start + max(1, size)]
