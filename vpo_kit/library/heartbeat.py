"""Signs of life: a plain line where nothing was said for a while, and how long what is left will take. No torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

QUIET_S = 30.0
"""Seconds without a line after which a log gets one, however long the single step takes."""


class Heartbeat:
    """A thread that says `line()` whenever nothing was said for `QUIET_S` seconds: a step may take long."""

    def __init__(self, say: Callable[[str], None], line: Callable[[], str]) -> None:
        self._say, self._line, self._every = say, line, QUIET_S
        self._spoken = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def spoke(self) -> None:
        """Something else was said just now."""
        self._spoken = time.monotonic()

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(max(0.0, self._spoken + self._every - time.monotonic())):
            if time.monotonic() - self._spoken >= self._every:
                self.spoke()
                self._say(self._line())


class Pace:
    """How long a count to `total` will still take, by the mean over what this process has done.

    Steps may be of very unequal length (one in four samples videos first), so the newest ones say little. `clock` gives
    seconds.
    """

    def __init__(self, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = total, clock
        self._began = self._last = clock()
        self._done = self._first = 0

    @property
    def done(self) -> int:
        return self._done

    def start_at(self, done: int) -> None:
        """So many were done before: by an earlier process, in no time of this one."""
        self._done = self._first = done
        self._began = self._last = self._clock()

    def expect(self, total: int) -> None:
        """So many will be done in all, as far as can be told by now."""
        self._total = total

    def reach(self, done: int) -> None:
        """So many are done now."""
        self._done, self._last = done, self._clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the count began."""
        return self._clock() - self._began

    @property
    def left(self) -> float | None:
        """The seconds that are left; None before anything is done, or without a total. One that takes longer than the
        mean counts as nearly done, and never as negative time.
        """
        own = self._done - self._first
        if self._total is None or own <= 0:
            return None
        each = (self._last - self._began) / own
        left = self._total - self._done
        return max(each * left - (self._clock() - self._last), each * (left - 1), 0.0)

    def words(self) -> str:
        """The time in words: ``4:10 gone, about 12:00 left``."""
        left = self.left
        return f"{clock(self.elapsed)} gone" + ("" if left is None else f", about {clock(left)} left")


def clock(seconds: float) -> str:
    """Seconds as a clock shows them: ``0:07``, ``12:00``, ``3:25:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
