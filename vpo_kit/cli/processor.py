"""How a command uses the processor: what has to be said before torch is imported."""

from __future__ import annotations

import ctypes
import os

KEPT = 2**30
"""Bytes at the end of the heap that stay with the process when they are freed."""
SETTINGS = {-3: KEPT, -1: KEPT, -2: 2**26}
"""glibc's `M_MMAP_THRESHOLD`, `M_TRIM_THRESHOLD` and `M_TOP_PAD`, for `mallopt`."""


def let_others_work() -> None:
    """Let threads that wait for each other sleep, where the environment does not say otherwise: those of OpenMP keep a
    core busy with waiting, which whoever else is there could use.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_freed() -> bool:
    """Let the memory of a freed tensor serve the next one; whether the C library knows how.

    By default glibc gives blocks of 32 MiB and more back to the system, and gets the next ones page by page, zeroed,
    which shows where a decoder's activations are that large. A process then holds up to `KEPT` bytes more than it uses.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none that can be asked like this
        return False
    return all(mallopt(name, value) for name, value in SETTINGS.items())
