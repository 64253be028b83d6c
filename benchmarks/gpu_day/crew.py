"""The workers of one part: started early, given one case after the other, ended and replaced where they must be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.protocol import Options

ROOT = Path(__file__).parents[2]
START = 120.0
"""Seconds that a worker may take to import its part: a fresh machine reads everything from its disk."""
RESTARTS, STARTS = 8, 2
"""How often workers are replaced, and how often where none has ever come up."""

OnRow = Callable[[str, str, dict[str, Any]], None]
"""Gets a file, a case and its row."""


@dataclass(frozen=True)
class Part:
    """A module of cases in `workers` processes, for at most `seconds`; their rows are in the file ``FILE.json``.

    `environment` is added to the workers' own.
    """

    module: str
    file: str
    seconds: float
    workers: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


class Worker:
    """One process of a part; `case` is what it works at, `until` when it must have said something. One that is `spent`
    must not go on.
    """

    def __init__(self, part: Part, options: Options, log: Path) -> None:
        self._pipe, write = os.pipe()
        os.set_blocking(self._pipe, False)
        command = [sys.executable, "-m", "benchmarks.gpu_day.worker", part.module, options.dump(), str(write)]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, pass_fds=[write], cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **part.environment}, start_new_session=True,
            )  # fmt: skip
        os.close(write)
        self.ready = False
        self.case: str | None = None
        self.spent = False
        self.until = time.monotonic() + START
        self._rest = b""

    @property
    def busy(self) -> bool:
        return self.case is not None or not self.ready

    def said(self) -> list[dict[str, Any]]:
        """What it has said since the last time."""
        with suppress(BlockingIOError):
            while data := os.read(self._pipe, 65536):
                self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        return [json.loads(text) for text in lines]

    def give(self, case: str, limit: float) -> None:
        assert self.process.stdin is not None
        self.case, self.until = case, time.monotonic() + limit
        with suppress(BrokenPipeError):  # its end is seen in the next round
            self.process.stdin.write(f"{case}\n".encode())
            self.process.stdin.flush()

    def end(self) -> None:
        """The process and all that it started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        os.close(self._pipe)


class Crew:
    """All workers of a part. `on_row` gets each case's row as soon as it is there."""

    def __init__(self, part: Part, options: Options, log: Path, on_row: OnRow) -> None:
        self.part, self._options, self._log, self._on_row = part, options, log, on_row
        self._limits: dict[str, float] = {}
        self._known = False
        self._waiting: deque[str] = deque()
        self._restarts = 0
        self._until = float("inf")
        self.workers = [Worker(part, options, log) for _ in range(part.workers)]

    def begin(self) -> None:
        """The part's time runs from now on."""
        self._until = time.monotonic() + self.part.seconds

    def turn(self) -> bool:
        """Look after the workers once. False where nothing more is to be done."""
        if time.monotonic() > self._until:
            self.stop("stopped: the part's time is up")
            return False
        for worker in list(self.workers):
            self._listen(worker)
            if worker.spent:
                self._lost(worker, "")
            elif worker.process.poll() is not None:
                self._lost(worker, f"the process ended with code {worker.process.returncode}")
            elif time.monotonic() > worker.until:
                self._lost(worker, "stopped: it took too long")
            elif not worker.busy and self._waiting:
                case = self._waiting.popleft()
                worker.give(case, self._limits[case])
        if self.workers and (self._waiting or any(worker.busy for worker in self.workers)):
            return True
        self.stop("")
        return False

    def stop(self, reason: str) -> None:
        """End all workers, and say what was not finished."""
        for worker in self.workers:
            self._listen(worker)
        at_work = [worker.case for worker in self.workers if worker.case is not None]
        for worker in self.workers:
            worker.end()
        for case in at_work:
            self._on_row(self.part.file, case, {"error": reason})
        for case in self._waiting:
            self._on_row(self.part.file, case, {"error": "not reached"})
        if not self._known:
            self._on_row(self.part.file, self.part.module, {"error": reason or "it said nothing"})
        self.workers.clear()
        self._waiting.clear()

    def _listen(self, worker: Worker) -> None:
        for said in worker.said():
            if "cases" in said:
                worker.ready = True
                if not self._known:
                    self._known, self._limits = True, said["cases"]
                    self._waiting.extend(said["cases"])
            else:
                worker.case, worker.spent = None, said["spent"]
                self._on_row(self.part.file, said["case"], said["row"])
            worker.until = float("inf")

    def _lost(self, worker: Worker, reason: str) -> None:
        """A worker that ended, or must: another one takes its place where there is more to do."""
        self._listen(worker)
        if worker.case is not None:
            self._on_row(self.part.file, worker.case, {"error": reason})
        worker.end()
        self.workers.remove(worker)
        if (self._waiting or not self._known) and self._restarts < (RESTARTS if self._known else STARTS):
            self._restarts += 1
            self.workers.append(Worker(self.part, self._options, self._log))
        elif not self.workers:
            self.stop(reason)
