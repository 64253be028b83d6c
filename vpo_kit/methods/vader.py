"""VADER (arXiv 2407.08737): from pure noise, reward gradient of one random frame through the last step."""

from __future__ import annotations

from typing import ClassVar, Literal

from vpo_kit.methods.base import MethodConfig, Needs
from vpo_kit.methods.editing import Editing, EditingConfig


class VaderConfig(EditingConfig):
    """Settings of `vader`: those of the routine with one frame for the clip."""

    start: Literal["clip", "noise"] = "noise"
    segments: int = 1
    attenuation: Literal["normalised", "raw", "none"] = "none"


class Vader(Editing):
    """One random frame of each clip is decoded and judged."""

    summary: ClassVar[str] = "VADER: from noise, reward gradient of one random frame, last step"
    needs: ClassVar[Needs] = Needs(data=("prompts",), reward="differentiable")
    Config: ClassVar[type[MethodConfig]] = VaderConfig
