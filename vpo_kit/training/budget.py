"""What a run may use: optimiser steps, network passes, seconds of training; it ends at the first that it reaches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from vpo_kit.config import Run
from vpo_kit.processes import Processes


class Spending:
    """Steps and passes are read from the log, so they are the same after every interruption; seconds are counted here
    and kept in the checkpoints: what a killed process did after its last checkpoint is done again and not counted.
    """

    def __init__(self, run: Run, processes: Processes) -> None:
        self._run = run
        self._processes = processes
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """The seconds of training so far; 0 without a limit, so that checkpoints do not depend on the clock."""
        return 0.0 if self._run.max_seconds is None else time.monotonic() - self._started

    @contextmanager
    def looking(self) -> Iterator[None]:
        """What is done in here is no training, and its seconds do not count."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._started += time.monotonic() - began

    def resume(self, seconds: float) -> None:
        """Go on from a checkpoint's `seconds`."""
        self._started = time.monotonic() - seconds

    def progress(self, step: int, history: Sequence[Mapping[str, float]]) -> float:
        """The share of the budget that is spent after `step` steps, logged in `history`: of what is nearest its end."""
        run = self._run
        shares = [step / run.steps]
        if run.max_passes is not None:
            shares.append(sum(row["passes"] for row in history) / run.max_passes)
        if run.max_seconds is not None:
            shares.append(self._processes.agree(self.seconds) / run.max_seconds)
        return min(1.0, max(shares))

    def spent(self, step: int, history: Sequence[Mapping[str, float]]) -> bool:
        """Whether the run is at its end after `step` steps, logged in `history`; the main process's clock counts.
        There is always a first step.
        """
        run = self._run
        if step == 0:
            return False
        if step >= run.steps:
            return True
        if run.max_passes is not None and sum(row["passes"] for row in history) >= run.max_passes:
            return True
        return run.max_seconds is not None and self._processes.agree(self.seconds) >= run.max_seconds
