"""A labeller that is asked about two clips at hand, outside any set: what a tournament of candidates needs.

Legend: ``F`` frames; video ``[F, 3, H, W]`` in [0, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vpo_kit.pairing.records import Hashes, Pair
from vpo_kit.pairing.segments import cut, default_seconds


@dataclass(frozen=True)
class Match:
    """Two clips ``[F, 3, H, W]`` of one prompt, of the same length and rate."""

    first: Tensor
    second: Tensor
    prompt: str
    fps: float


class Comparer(ABC):
    """Says which of two clips is better, as its labeller would label the pair as a whole."""

    @abstractmethod
    def compare(self, matches: Sequence[Match]) -> list[int | None]:
        """+1 where the first clip is better, -1 the second, 0 a tie; None where no answer came.

        Raises `VpoError` where going on is of no use.
        """

    def spent(self) -> list[str]:
        """What it has done and cost so far, in lines; empty before it was asked."""
        return []


def pair_of(frames: int, fps: float, prompt: str, seconds: float | None) -> Pair:
    """The pair that two clips of `frames` frames would be in a set, cut into segments of `seconds` (default: those of
    `default_seconds`); there are no files behind its names.
    """
    return Pair(
        id="match", prompt=prompt, first_file_name="first", second_file_name="second", latents="none",
        strategy="independent", seeds=(0, 0), fps=fps, frames=frames,
        segments=cut(frames, fps, seconds or default_seconds(frames, fps)),
        sha256=Hashes(first="", second="", latents=""),
    )  # fmt: skip
