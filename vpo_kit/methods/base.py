"""What a training method is: a small class that says what it needs and turns a batch into a loss.

The loop owns everything else: it checks the needs before anything is loaded, draws prompts, steps the optimiser,
logs, checks health and writes checkpoints. No method can override it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from vpo_kit.models.base import Conditions, Settings, VideoModel
from vpo_kit.rewards.base import Mixture


@dataclass(frozen=True)
class Needs:
    """What a run must have for a method. `reward` is ``none``, ``any`` or ``differentiable``."""

    prompts: bool = True
    reference: bool = False
    reward: Literal["none", "any", "differentiable"] = "none"


class Policy(Protocol):
    """The model with its LoRA, and the frozen reference that the same weights hold."""

    model: VideoModel

    def reference(self) -> AbstractContextManager[None]:
        """Inside, the model is the reference."""

    def refresh_reference(self, decay: float) -> None:
        """Move the reference to ``decay * reference + (1 - decay) * policy``; 0 is a hard copy."""


@dataclass(frozen=True)
class Context:
    """What the loop hands to a method once, before the first step."""

    policy: Policy
    reward: Mixture | None
    sampling: Settings
    negative: Conditions
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Batch:
    """One optimiser step's prompts, already encoded; `step` counts from 0."""

    step: int
    prompts: Sequence[str]
    conditions: Conditions


@dataclass(frozen=True)
class StepOutput:
    """What is optimised, and what is logged: the two never share a value."""

    loss: Tensor
    report: dict[str, float] = field(default_factory=dict)


class MethodConfig(BaseModel):
    """Base of every method's own settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Method(ABC):
    """One training method. A new one is a file with `needs`, a `Config` and a `step`."""

    summary: ClassVar[str]
    needs: ClassVar[Needs]
    Config: ClassVar[type[MethodConfig]] = MethodConfig

    def __init__(self, config: Any, context: Context) -> None:
        self.config = config
        self.context = context

    @property
    def updates_per_batch(self) -> int:
        """How many optimiser steps in a row get the same batch."""
        return 1

    @abstractmethod
    def step(self, batch: Batch) -> StepOutput:
        """The loss of one optimiser step, with its graph."""

    def state(self) -> dict[str, Tensor]:
        """What an exact resume needs beside weights and optimiser; all randomness comes from seed and step."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:  # noqa: B027  (most methods keep nothing)
        """Take back what `state` gave."""
