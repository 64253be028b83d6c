"""Memory of freed tensors is used again, seen by the pages that the system has to give; waiting threads sleep."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from vpo_kit.cli import processor

FAULTS = """
import resource, sys, torch
from vpo_kit.cli.processor import keep_freed
if sys.argv[1] == "kept":
    assert keep_freed()
torch.ones(2**24).add_(1)  # what is slow once
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)  # 64 MiB, which are 16,384 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_serves_the_next_tensor() -> None:
    def faults(way: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < faults("given back") / 4


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert processor.keep_freed() is False


@pytest.mark.parametrize("said", [None, "ACTIVE"])
def test_threads_sleep_while_they_wait_unless_it_is_said_otherwise(said: str | None) -> None:
    """By what OpenMP itself shows when it is loaded, which is with torch: after the command line has begun."""
    own = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment = {**own, "OMP_DISPLAY_ENV": "true", **({"OMP_WAIT_POLICY": said} if said else {})}
    program = "from vpo_kit.cli import processor\nprocessor.let_others_work()\nimport torch"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert f"OMP_WAIT_POLICY = '{said or 'PASSIVE'}'" in done.stderr
