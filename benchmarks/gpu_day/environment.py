"""The card and what is installed, and how fast it multiplies: the rates that all later shares refer to."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.gpu_day import card
from benchmarks.gpu_day.protocol import Options
from vpo_kit.evaluation.report import versions
from vpo_kit.testing.precision import exact

ROUNDS = 12
PACKAGES = ("xformers", "flash_attn", "sageattention", "bitsandbytes", "torchao", "triton", "accelerate")


def cases(options: Options) -> dict[str, float]:
    return {"machine": 30, "rates": 45}


def run(case: str, options: Options) -> dict[str, Any]:
    device = card.device(options.rehearse)
    return machine(device) if case == "machine" else rates(device, 256 if options.rehearse else 8192)


def machine(device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "versions": {**versions(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()},
        "machine": platform.machine(), "cores": os.cpu_count(), "kernel": platform.release(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "compiler": next((name for name in ("g++", "c++", "clang++") if shutil.which(name)), None),
        "packages": [name for name in PACKAGES if importlib.util.find_spec(name) is not None],
        "card": "none: a rehearsal",
    }  # fmt: skip
    if device.type == "cuda":
        what = torch.cuda.get_device_properties(device)
        found |= {
            "card": what.name, "card memory": what.total_memory, "capability": f"{what.major}.{what.minor}",
            "multiprocessors": what.multi_processor_count, "driver": _driver(),
        }  # fmt: skip
    return found


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if shutil.which(query[0]) is None:
        version = Path("/proc/driver/nvidia/version")
        return version.read_text().splitlines()[0] if version.is_file() else "unknown"
    return subprocess.run(query, capture_output=True, text=True, timeout=20, check=False).stdout.strip()


def rates(device: torch.device, side: int) -> dict[str, Any]:
    """Of random numbers: floating point operations a second in square products and in a convolution over video, bytes a
    second that a copy reads and writes, seconds of the smallest operator.
    """
    found: dict[str, Any] = {"side": side}
    products = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    with exact():
        for name, kind in products.items():
            found[name] = _product(side, device, kind)
    torch.backends.cuda.matmul.allow_tf32 = True
    found["float32, TF32"] = _product(side, device, torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = False
    clip = torch.randn(1, 96, 4, side // 32, side // 32, device=device).bfloat16()
    kernel = torch.randn(96, 96, 3, 3, 3, device=device).bfloat16()
    took = _median(lambda: torch.nn.functional.conv3d(clip, kernel, padding=1))
    found["convolution, bfloat16"] = 2 * clip.numel() * kernel[0].numel() / took
    block = torch.randn(side * side // 2, device=device)
    found["copy"] = 2 * block.numel() * block.element_size() / _median(block.clone)
    one = torch.ones((), device=device)
    found["launch"] = _median(lambda: one + one)
    return found


def _product(side: int, device: torch.device, kind: torch.dtype) -> float:
    one, other = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    return 2 * side**3 / _median(lambda: one @ other)


def _median(work: Callable[[], Any]) -> float:
    return median([card.seconds(work) for _ in range(ROUNDS)][3:])
