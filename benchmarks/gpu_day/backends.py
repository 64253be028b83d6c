"""The steps that need packages which the others must not see: an attention backend is chosen when diffusers loads."""

from __future__ import annotations

from benchmarks.gpu_day.protocol import Options
from benchmarks.gpu_day.steps import chosen, run, spent

__all__ = ["cases", "run", "spent"]


def cases(options: Options) -> dict[str, float]:
    return chosen(options, extra=True)
