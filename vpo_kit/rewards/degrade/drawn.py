"""A clip that is not only pixels: what degradations of motion need of it. No torch at import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
Rng = np.random.Generator


class Redraw(Protocol):
    def __call__(self, time: Array, opacity: Array | None = None, shift: Array | None = None) -> Tensor:
        """The clip at the times ``[F]``; opacity ``[F]`` and shift ``[F, 2]`` are the main object's."""


@dataclass(frozen=True)
class Drawn:
    """A video ``[F, 3, H, W]`` in [0, 1] and how to draw it again at other times, or with its main object changed."""

    video: Tensor
    redraw: Redraw
    family: str
    """The kind of picture, as its maker calls it."""

    @property
    def num_frames(self) -> int:
        return len(self.video)
