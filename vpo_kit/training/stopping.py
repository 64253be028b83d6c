"""The best LoRA so far on held-out data, and when to stop looking for a better one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vpo_kit.config import EarlyStopping
from vpo_kit.errors import ConfigError
from vpo_kit.registry import nearest


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

    def update(self, history: Sequence[dict[str, float]], policy: dict[str, Tensor]) -> None:
        """Take the last row of the log `history`; one without the metric is passed over where an earlier one has it.
        Raises `ConfigError` where none has: the run would never stop.
        """
        row, metric = history[-1], self._settings.metric
        value = row.get(metric)
        if not self._settings.patience:
            return
        if value is None:
            known = {key for one in history for key in one}
            if metric not in known:
                raise ConfigError(f"early_stopping.metric: no row of the log has {metric!r}{nearest(metric, known)}")
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
