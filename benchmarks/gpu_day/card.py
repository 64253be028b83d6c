"""The device of a day: the card, or the processor that stands in for it in a rehearsal."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch


def device(rehearse: bool) -> torch.device:
    """Raises `RuntimeError` where a day is to begin without a card."""
    if rehearse:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError("there is no CUDA device: --rehearse runs without one")
    return torch.device("cuda", 0)


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any]) -> float:
    """Of `work`, with all that it has started on the card."""
    synchronise()
    started = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - started


def clean() -> int:
    """Give back what nobody holds; bytes that are held all the same."""
    gc.collect()
    if not torch.cuda.is_available():
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peaks() -> dict[str, int]:
    """Bytes since `clean`: the most that tensors held, and the most that the allocator took. Nothing without a card."""
    if not torch.cuda.is_available():
        return {}
    return {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
