"""DRaFT-K (arXiv 2309.17400): from pure noise, reward gradient through the last K steps, every frame alike."""

from __future__ import annotations

from typing import ClassVar, Literal

from vpo_kit.methods.base import MethodConfig, Needs
from vpo_kit.methods.editing import Editing, EditingConfig


class DraftConfig(EditingConfig):
    """Settings of `draft`: those of the routine with DRaFT's defaults."""

    start: Literal["clip", "noise"] = "noise"
    segments: int = 0
    attenuation: Literal["normalised", "raw", "none"] = "none"


class Draft(Editing):
    """DRaFT-1 by default; ``method.grad_steps`` is K."""

    summary: ClassVar[str] = "DRaFT-K: from noise, reward gradient through the last K steps"
    needs: ClassVar[Needs] = Needs(data=("prompts",), reward="differentiable")
    Config: ClassVar[type[MethodConfig]] = DraftConfig
