"""What a model's videos are like, and how they are sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple


class Size(NamedTuple):
    """The shape of a video: frames, and pixels."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames} frames of {self.width} x {self.height}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How videos of a model are made: sizes in pixels and frames, `fps`, sampling steps and guidance scale (of a model
    with two networks also one for each, by the family's words); `embedded_guidance` is what a training pass sees where
    the network takes the scale as an input.
    """

    frames: int
    height: int
    width: int
    fps: float
    steps: int
    guidance: float | Mapping[str, float]
    negative_prompt: str = ""
    embedded_guidance: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """The noise levels of the steps with guidance; the others cost one pass."""
    shift: float | None = None
    """The shift of the sampler's chain; None is the scheduler's own."""

    def __post_init__(self) -> None:
        low, high = self.guidance_interval
        object.__setattr__(self, "guidance_interval", (low, high))  # what was read from JSON is a list

    @property
    def size(self) -> Size:
        """The shape of a video."""
        return Size(self.frames, self.height, self.width)

    def sized(self, size: Size | None) -> Settings:
        """A copy for videos of another shape, or the same where there is none."""
        return self if size is None else replace(self, **size._asdict())

    def changed(self, **values: Any) -> Settings:
        """A copy with the values that are not None."""
        return replace(self, **{k: v for k, v in values.items() if v is not None})
