"""How two things are compared: in turns, so that a busy machine slows both alike, and by medians."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Row:
    """One line of the table: a ratio, and the bound that it must keep (`at_most`, or else at least)."""

    what: str
    against: str
    ratio: float
    aim: float
    at_most: bool = True
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bound(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.aim:g}"

    @property
    def met(self) -> bool:
        return self.ratio <= self.aim if self.at_most else self.ratio >= self.aim


@dataclass
class Clock:
    """Seconds of one thread's work: by the processor, which other programs do not stretch, and on the wall."""

    processor: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def __call__(self, work: Callable[[], object]) -> None:
        started = time.process_time(), time.perf_counter()
        work()
        self.add(time.process_time() - started[0], time.perf_counter() - started[1])

    def add(self, processor: float, wall: float) -> None:
        self.processor.append(processor)
        self.wall.append(wall)


def in_turns(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Clock]:
    """Run all `sides` once a round, in an order that is turned round each time; the first round only warms up."""
    clocks = {name: Clock() for name in sides}
    for i in range(rounds + 1):
        for name in list(sides) if i % 2 else reversed(list(sides)):
            clocks[name](sides[name])
    for clock in clocks.values():
        del clock.processor[0], clock.wall[0]
    return clocks


def ratio(ours: Sequence[float], other: Sequence[float]) -> float:
    """The median over the rounds of ours over the other."""
    return round(median(a / b for a, b in zip(ours, other, strict=True)), 3)


def seconds(values: Sequence[float]) -> float:
    return round(median(values), 4)


def memory(*, reset: bool = False) -> float:
    """The most memory that this process has had at once, in MB; `reset` begins anew from what it has now.

    Not ``getrusage``, which counts what the parent process had when it started this one.
    """
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def apart(module: str, *arguments: str, thrifty: bool = True) -> dict[str, Any]:
    """What ``python -m benchmarks.MODULE ARGUMENTS`` prints last, as JSON, from a process of its own.

    `thrifty`: freed memory goes back to the system at once, or glibc's leftovers would be most of the memory that is
    seen: at 8 pairs 490 MB, not 180. That takes time, so seconds are measured without.
    """
    env = {**os.environ, "OMP_NUM_THREADS": "1", **({"MALLOC_MMAP_THRESHOLD_": "65536"} if thrifty else {})}
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
