"""How fast this machine is, measured in about a second, and what operators would take on it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vpo_kit.planning.counting import Op


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Floating point operations a second in matrix products and in convolutions, bytes a second, and the seconds that
    the smallest operator takes.
    """

    device: str
    matrix: float
    convolution: float
    bytes: float
    overhead: float

    def seconds(self, ops: Counter[Op]) -> float:
        """An estimate: each operator takes its arithmetic or its memory traffic, whichever is slower, and its launch.

        Real kernels are seldom as good as the probe's, so a real step is more likely slower than faster.
        """
        rates = {"matrix": self.matrix, "convolution": self.convolution, "other": self.matrix}
        return sum(
            count * (self.overhead + max(op.flops / rates[op.kind], op.bytes / self.bytes)) for op, count in ops.items()
        )


@torch.no_grad()
def measure(dtype: str) -> Speed:
    """The speed of the GPU, or of the processor where there is none, in the torch dtype called `dtype`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side = 4096 if device.type == "cuda" else 512
    kind = getattr(torch, dtype)
    matrix = torch.randn(side, side, device=device).to(kind)
    clip = torch.randn(1, 64, 3, side // 16, side // 16, device=device).to(kind)
    kernel = torch.randn(64, 64, 3, 3, 3, device=device).to(kind)
    one = torch.ones((), device=device)
    layer = _best(lambda: torch.nn.functional.conv3d(clip, kernel, padding=1), device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} processor threads"
    return Speed(
        device=name,
        matrix=2 * side**3 / _best(lambda: matrix @ matrix, device),
        convolution=2 * clip.numel() * kernel[0].numel() / layer,
        bytes=2 * matrix.numel() * matrix.element_size() / _best(lambda: matrix.clone(), device),
        overhead=_best(lambda: one + one, device),
    )


def _best(call: Callable[[], Tensor], device: torch.device, seconds: float = 0.2) -> float:
    """The fastest of several calls."""

    def once() -> float:
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    once()
    found, until = once(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        found = min(found, once())
    return found
