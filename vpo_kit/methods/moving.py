"""A reference that moves: when it follows the policy, and that a step which comes again does not move it twice."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit.config import Run
from vpo_kit.methods.base import Method, MethodConfig, Policy


class MovingConfig(MethodConfig):
    """Settings of a reference that may move."""

    reference_update: Literal["never", "hard", "ema"] = Field(
        "never", description="the reference stays, becomes the policy every so often, or follows it slowly"
    )
    reference_every: int = Field(200, ge=1, description="optimiser steps between hard copies (K)")
    reference_decay: float = Field(0.99, gt=0, lt=1, description="per step, for ema")

    def idle_reference(self, run: Run) -> list[str]:
        """A line where the reference never gets to move in `run`."""
        if self.reference_update == "hard" and self.reference_every >= run.steps:
            return [
                f"method.reference_every {self.reference_every}: the reference does not move in {run.steps} steps "
                "(method.reference_update=never says so)"
            ]
        return []


class FollowsReference(Method):
    """A method whose settings are a `MovingConfig`, which say what becomes of its reference before a run begins."""

    @classmethod
    def moves_reference(cls, config: Any) -> bool:
        return bool(config.reference_update != "never")

    @classmethod
    def idle(cls, config: Any, run: Run) -> list[str]:
        return list(config.idle_reference(run))


class Moving:
    """What moves a policy's reference; `last` is the step before which it moved last, -1 for never."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.last = -1

    def follow(self, step: int, config: MovingConfig) -> None:
        """What `config` asks for before `step`."""
        if config.reference_update == "ema":
            self.move(step, config.reference_decay)
        elif config.reference_update == "hard" and step % config.reference_every == 0:
            self.move(step, 0.0)

    def move(self, step: int, decay: float) -> None:
        """``reference <- decay * reference + (1 - decay) * policy`` before `step`, once, and not before the first one:
        there both are the same.
        """
        if step > max(self.last, 0):
            self.last = step
            self._policy.refresh_reference(decay)

    def state(self) -> dict[str, Tensor]:
        return {"moved": torch.tensor(self.last)} if self.last > 0 else {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.last = int(state["moved"]) if "moved" in state else -1
