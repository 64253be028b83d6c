"""AlignProp (arXiv 2310.03739): from pure noise, reward gradient through a random number of last steps."""

from __future__ import annotations

from typing import ClassVar, Literal

from vpo_kit.methods.base import MethodConfig, Needs
from vpo_kit.methods.editing import Editing, EditingConfig


class AlignPropConfig(EditingConfig):
    """Settings of `alignprop`: those of the routine with AlignProp's randomised truncation."""

    start: Literal["clip", "noise"] = "noise"
    grad_steps: int = 4
    random_grad_steps: bool = True
    segments: int = 0
    attenuation: Literal["normalised", "raw", "none"] = "none"


class AlignProp(Editing):
    """Truncation drawn from 1 to ``method.grad_steps``; the paper's upper end is the whole chain."""

    summary: ClassVar[str] = "AlignProp: from noise, reward gradient through some last steps"
    needs: ClassVar[Needs] = Needs(data=("prompts",), reward="differentiable")
    Config: ClassVar[type[MethodConfig]] = AlignPropConfig
