"""``vpo --help`` against importing what it is made of: processor time of whole processes."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed.timing import Row, ratio, seconds

ROUNDS = 15


def start() -> list[Row]:
    vpo = str(Path(sys.executable).with_name("vpo"))
    ours: list[float] = []
    bare: list[float] = []
    for i in range(ROUNDS):
        sides = [(ours, [vpo, "--help"]), (bare, [sys.executable, "-c", "import typer, rich"])]
        for found, command in sides if i % 2 else reversed(sides):
            found.append(_seconds(command))
    details = {"help, s": seconds(ours), "imports, s": seconds(bare), "rounds": ROUNDS}
    return [Row("vpo --help", 'python -c "import typer, rich"', ratio(ours, bare), 1.5, details=details)]


def _seconds(command: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
