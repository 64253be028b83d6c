"""``vpo compare`` whose runs are forks of it: processes of their own all the same, without their imports.

Call it in a `tests.support.forks.Fork`, which has imported everything and has no other threads.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from vpo_kit import files
from vpo_kit.cli import main
from vpo_kit.comparison import runner


def vpo(arguments: list[str]) -> None:
    """``vpo ARGUMENTS``."""
    torch.set_num_threads(1)  # a fork would wait for ever for the threads of a pool that this process had made
    runner._process = _process  # type: ignore[assignment]  # in the process of this one test
    main(arguments)


def with_a_slow_file(stem: str, arguments: list[str]) -> None:
    """``vpo ARGUMENTS``, where half a second passes before a file called `stem` is on the disk and gets its name."""
    sync = files._sync_all

    def slowly(path: Path) -> None:
        sync(path)
        time.sleep(0.5 if path.name.startswith(f".{stem}.") else 0)

    files._sync_all = slowly
    vpo(arguments)


class _Child:
    """What `runner` asks of a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        return self._reap(0)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def _reap(self, how: int) -> int | None:
        if self.returncode is None and (found := os.waitpid(self.pid, how))[0]:
            self.returncode = os.waitstatus_to_exitcode(found[1])
        return self.returncode


@contextmanager
def _process(path: Path, lock: int) -> Iterator[_Child]:
    """``vpo train`` on the folder, which holds the lock too; it does not outlive the block."""
    child = _Child(os.fork())
    if child.pid == 0:
        _train(path)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            child.wait()


def _train(path: Path) -> None:
    log, code = os.open(path / "output.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT), 1
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(torch.get_num_threads())  # a fork's pool is made anew; two threads at once would miss it
    try:
        main(["train", "--resume", "--output", str(path)])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
