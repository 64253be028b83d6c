"""What can be measured of videos: the facts of a metric, and the shape of what measures it. No torch here.

A new metric is one class with the facts of what it measures and a call, and one entry point of ``vpo_kit.metrics`` that
names the class. It is made without arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Direction = Literal["higher", "lower", "neutral"]
Group = Literal["judges", "motion", "over time", "pictures", "sets", "truth", "VBench"]
GROUPS: tuple[Group, ...] = ("judges", "motion", "over time", "pictures", "sets", "truth", "VBench")
"""Parts of a table, in their order."""
Need = Literal["prompt", "fps", "truth", "reference", "seeds", "dino", "clip"]
"""What a measure needs beside the pixels: the prompt, frames a second, a made world, reference clips, several videos of
a prompt, weights of DINO, or ``clip`` as a judge.
"""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Facts about one metric; `direction` says what is better.

    A metric without a direction is about motion or speed: more is not better and less is not worse, but a gain of
    quality beside a loss of motion is no gain.
    """

    name: str
    group: Group
    direction: Direction
    unit: str
    about: str
    needs: tuple[Need, ...] = ()


class Measure(Protocol):
    """What gives one metric or several that share their work."""

    metrics: ClassVar[Sequence[Metric]]

    def __call__(self, video: Tensor, prompts: Sequence[str], fps: float) -> Mapping[str, Sequence[float]]:
        """``[B, F, 3, H, W]`` in [0, 1] to metrics by name, a number for each video; those that clips of this length or
        size cannot show are left out.
        """
