"""Train the runs of a comparison, each in a process of its own, and only what is not finished.

DIR/  compare.yaml                     what is compared
      base/KEY/                        a run that only measured the base; its samples are those of step 0 of all runs
      runs/NAME/                       run folders as `vpo train` leaves them, and in each of them
          attempts.jsonl output.log    its processes with their seconds and memory, and what they printed

A run's folder begins as that of a run which was killed as soon as it had measured the base, so `vpo train --resume`
is all that is ever called.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from resource import struct_rusage
from typing import Any

from vpo_kit import files, step_folders
from vpo_kit.config import Run
from vpo_kit.evaluation.unfinished import Parts
from vpo_kit.training.run_folder import RunFolder

BASE_SAMPLES = Path("samples") / step_folders.name(0)
LOCK = ".process.lock"
"""A lock beside `files.LOCK`, which the run's own process holds and which no other can inherit."""
POLL = 0.1
"""Seconds between two looks at a process."""
MIB = 2**20 if sys.platform == "darwin" else 2**10
"""A mebibyte in the unit of the operating system's ``ru_maxrss``."""


@dataclass(frozen=True)
class Planned:
    """One run: its row on the board, its settings (with seed and output folder), and where its base is measured."""

    row: str
    run: Run
    base: Path

    @property
    def path(self) -> Path:
        assert self.run.output is not None
        return self.run.output

    def finished(self) -> bool:
        """The run has ended as it should, or was stopped by a health check."""
        return (self.path / "summary.json").is_file()


def measure_base(planned: Planned, on_notice: Callable[[str], None]) -> bool:
    """Let a run with these settings measure the base and end it then; False where it cannot.

    So the runs themselves all measure the same, once after training, and their seconds can be compared.
    """
    done = planned.base / BASE_SAMPLES / "metrics.json"
    if not done.is_file():
        # one step: a process that outlives this command soon ends by itself
        run = planned.run.model_copy(update={"output": planned.base, "steps": 1})
        with _held(planned.base, on_notice) as lock:
            assert lock is not None
            RunFolder(planned.base).start(run, resume=True)
            with _process(planned.base, lock) as process:
                while not done.is_file() and process.poll() is None:
                    time.sleep(POLL)
    if not done.is_file():
        return False
    Parts(done.parent, {}).drop()  # it may have been ended before it had
    return True


def turns(runs: Sequence[Planned], on_notice: Callable[[str], None]) -> Iterator[tuple[Planned, int]]:
    """The runs that are not finished, in their order, each with the lock on its folder, which is held until the next
    one is asked for. Those that another process is at work on are put off to the end and waited for there, so that
    commands on one folder share the work.
    """
    left = list(runs)
    while left := [one for one in left if not one.finished()]:
        for one, wait in [*((one, False) for one in left), (left[0], True)]:
            # taken where it is found free: two commands that only looked would both find the same one
            with _held(one.path, on_notice if wait else None) as lock:
                if lock is None:
                    continue
                left.remove(one)
                if not one.finished():  # by the process that was waited for
                    yield one, lock
            break


def train(planned: Planned, lock: int, watch: Callable[[], None]) -> None:
    """Train, or go on with, a run whose lock is held; `watch` is called while it goes on.

    However the run ends, that is in its folder afterwards and no error here. Raises `OutputError`.
    """
    _prepare(planned)
    log = planned.path / "output.log"
    printed = log.stat().st_size if log.is_file() else 0
    started, usage = time.monotonic(), None
    with _process(planned.path, lock) as process:
        _note(planned.path, {"event": "start"})
        try:
            while (usage := _ended(process)) is None:
                watch()
                time.sleep(POLL)
        finally:
            reason = "interrupted"
            if usage is None:
                process.kill()
                usage = _ended(process, wait=True)
            else:
                reason = _reason(log, printed, process.returncode)
            memory = round(usage.ru_maxrss / MIB) if usage else None
            seconds = round(time.monotonic() - started, 1)
            _note(planned.path, {"event": "end", "reason": reason, "seconds": seconds, "peak_memory_mb": memory})


def _prepare(planned: Planned) -> None:
    """Put the settings into the run's folder, or check those that are there, and the base's measurement."""
    folder = RunFolder(planned.path)
    if folder.holds_run:
        folder.check(planned.run, resume=True, overwrite=False)
    else:
        folder.start(planned.run, resume=False)
    source = planned.base / BASE_SAMPLES
    if not (source / "metrics.json").is_file():
        return  # the run measures the base itself
    target = planned.path / BASE_SAMPLES
    # the metrics last, when the other names are on the disk: they say that all is there
    for path in sorted(source.iterdir(), key=lambda path: (path.name == "metrics.json", path.name)):
        if path.is_file() and not path.name.startswith("."):
            if path.name == "metrics.json":
                files.sync_folder(target)
            files.link(path, target / path.name)
    files.sync_folder(target)


@contextmanager
def _held(path: Path, on_notice: Callable[[str], None] | None) -> Iterator[int | None]:
    """A lock on a run's folder that its process inherits: it is held as long as this command or that process lives.

    Where another process has it, it is waited for after a notice; without `on_notice` there is None at once.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_notice is None:
                yield None
                return
            on_notice(f"{path}: another process is at work here, waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@contextmanager
def _process(path: Path, lock: int) -> Iterator[subprocess.Popen[bytes]]:
    """`vpo train` on the folder; it does not outlive the block."""
    command = [sys.executable, "-m", "vpo_kit", "train", "--resume", "--output", str(path)]
    with (path / "output.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, pass_fds=[lock]
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()  # a run can be killed at any moment
                process.wait()


def _ended(process: subprocess.Popen[bytes], wait: bool = False) -> struct_rusage | None:
    """What the process used, once it has ended."""
    pid, status, usage = os.wait4(process.pid, 0 if wait else os.WNOHANG)
    if not pid:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _note(path: Path, event: Mapping[str, Any]) -> None:
    files.append(path / "attempts.jsonl", json.dumps(event))


def _reason(log: Path, start: int, code: int) -> str:
    """Why a process failed: the last line that it printed, or the signal that ended it; empty where it did not."""
    if code == 0:
        return ""
    if code < 0:
        name = str(code)
        with suppress(ValueError):
            name = signal.Signals(-code).name
        return f"ended by {name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")
    return last.removeprefix("vpo: ")
