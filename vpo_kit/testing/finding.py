"""What a check of an adapter found: a figure, and the bound that it must keep."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AdapterFinding:
    """`figure` must be at most `bound`, or with `least` at least; None where there was nothing to measure."""

    what: str
    figure: float | None
    bound: float
    least: bool = False
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether it keeps the bound, which what is not a number never does; None where nothing was measured."""
        if self.figure is None:
            return None
        return self.figure >= self.bound if self.least else self.figure <= self.bound

    def line(self) -> str:
        """``ok    the pipeline's video, no guidance: 3e-07 (at most 0.0001)``."""
        word = {True: "ok", False: "FAILS", None: "-"}[self.passed]
        seen = (
            ""
            if self.figure is None
            else f": {self.figure:.2g} (at {'least' if self.least else 'most'} {self.bound:g})"
        )
        return f"{word:5} {self.what}{seen}{f'; {self.note}' if self.note else ''}"


def apart(what: str, one: Tensor, other: Tensor, bound: float, note: str = "") -> AdapterFinding:
    """The largest difference of any two numbers; where the shapes differ it is infinite."""
    if one.shape != other.shape:
        return AdapterFinding(
            what=what, figure=math.inf, bound=bound, note=f"shapes {tuple(one.shape)} and {tuple(other.shape)}"
        )
    figure = float((one.float() - other.to(one.device).float()).abs().max())
    return AdapterFinding(what=what, figure=figure, bound=bound, note=note)


def same_shape(what: str, shape: torch.Size, expected: tuple[int, ...]) -> AdapterFinding:
    """The number of dimensions that are not as they must be."""
    wrong = sum(a != b for a, b in zip(shape, expected, strict=False)) + abs(len(shape) - len(expected))
    note = f"{tuple(shape)}" + (f" for {tuple(expected)}" if wrong else "")
    return AdapterFinding(what=what, figure=wrong, bound=0, note=note)
