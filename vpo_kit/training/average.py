"""An average of the LoRA's factors over the steps of a run (exponential moving average, EMA)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class Average:
    """``average <- d average + (1 - d) policy`` after every step, with d rising to `decay` as ``(1 + n) / (10 + n)``
    over the first n steps, as in diffusers' `EMAModel`; with `decay` 0 it does nothing.

    The average of factors is not the average of their products: for small steps the two are close.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self._state: dict[str, Tensor] = {}

    @property
    def state(self) -> dict[str, Tensor]:
        """The averaged weights in PEFT's names; empty before the first step, and where there is no average."""
        return self._state

    def update(self, policy: Mapping[str, Tensor]) -> None:
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        old = self._state or policy
        self._state = {key: value.lerp(old[key], decay) for key, value in policy.items()}

    def load_state(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Go on from a checkpoint after `steps` steps."""
        self._state, self._steps = dict(state), steps
