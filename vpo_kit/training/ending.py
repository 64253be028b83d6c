"""Ctrl-C, and the SIGTERM of a scheduler: a run ends between two steps, with everything saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from vpo_kit.errors import InterruptedRunError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Ending:
    """Whether this process was asked to end, and by which signal (0 for none)."""

    asked: int = 0

    def error(self, signals: int, step: int, place: str) -> InterruptedRunError:
        """What ends the run after `step`, which is saved in `place`; `signals` is the sum over all processes."""
        number = self.asked or (signal.SIGINT if signals else 0)  # a process that was not asked ends with the others
        return InterruptedRunError(
            128 + number, f"interrupted after step {step}, which is saved: vpo train --resume --output {place} goes on"
        )


@contextmanager
def awaited(on_notice: Callable[[str], None]) -> Iterator[Ending]:
    """Inside, the first signal is noted, and the second does what it did before: it ends the process at once.

    Python gives signals to its main thread alone: in another one nothing is changed.
    """
    ending, before = Ending(), dict[int, object]()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        before.clear()

    def note(number: int, frame: FrameType | None) -> None:
        restore()
        ending.asked = number
        on_notice("ending after this step, which is then saved; once more ends at once")

    if threading.current_thread() is threading.main_thread():
        before.update({number: signal.signal(number, note) for number in SIGNALS})
    try:
        yield ending
    finally:
        restore()
