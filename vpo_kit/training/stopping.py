"""The best LoRA so far on held-out data, and when to stop looking for a better one."""

from __future__ import annotations

import torch
from torch import Tensor

from vpo_kit.config import EarlyStopping


class Best:
    """The best value so far of one metric of the log, which it follows. With ``patience`` 0 it does nothing."""

    def __init__(self, settings: EarlyStopping) -> None:
        self._settings = settings
        self._value: float | None = None
        self._waited = 0
        self.step = 0
        self.policy: dict[str, Tensor] = {}

    @property
    def stop(self) -> bool:
        """No better value for `patience` validations in a row."""
        return self._settings.patience > 0 and self._waited >= self._settings.patience

    def update(self, row: dict[str, float], policy: dict[str, Tensor]) -> None:
        """Take a row of the log; rows without the metric are passed over."""
        value = row.get(self._settings.metric)
        if not self._settings.patience or value is None:
            return
        signed = value if self._settings.greater_is_better else -value
        if self._value is None or signed > self._value:
            self._value, self._waited, self.step, self.policy = signed, 0, int(row["step"]), policy
        else:
            self._waited += 1

    def state(self) -> dict[str, Tensor]:
        """The state for a checkpoint; empty before the first value."""
        if self._value is None:
            return {}
        numbers = torch.tensor([self._value, self._waited, self.step], dtype=torch.float64)
        return {"numbers": numbers, **{f"policy.{key}": value for key, value in self.policy.items()}}

    def load_state(self, state: dict[str, Tensor]) -> None:
        if not state:
            return
        value, waited, step = state["numbers"].tolist()
        self._value, self._waited, self.step = value, int(waited), int(step)
        self.policy = {k.removeprefix("policy."): v for k, v in state.items() if k.startswith("policy.")}
