"""Processes of their own for tests, without the ten seconds that imports take.

One process, started on first use, imports everything and runs nothing (`tests.support.preloaded`); what a test starts
is a fork of it, as real as a process that a shell starts: it has a pid, an environment, signals, and can be killed.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import socket
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.preloaded"])


class Fork:
    """``target(*arguments)`` in a process of its own; leaving the context kills it.

    `environment` is added to this process's, and None in it takes a variable out; with `leads` it begins a session, so
    that it can be killed with all that it has started.
    """

    def __init__(
        self, target: Callable[..., Any], *arguments: Any, environment: Mapping[str, str | None] | None = None,
        leads: bool = False,
    ) -> None:  # fmt: skip
        self._folder = tempfile.mkdtemp(prefix="fork-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        variables = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), **(environment or {})}
        kept = {key: value for key, value in variables.items() if value is not None}
        given = (self._folder, str(Path.cwd()), kept, leads, target, arguments)
        self._process = CONTEXT.Process(target=_begin, args=given, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        self.wait()

    @property
    def code(self) -> int | None:
        """Negative for a signal, None while it lives."""
        return self._process.exitcode

    @property
    def output(self) -> str:
        """What it has written to standard output so far."""
        return self._read("output")

    @property
    def errors(self) -> str:
        """What it has written to standard error so far."""
        return self._read("errors")

    def _read(self, name: str) -> str:
        path = Path(self._folder, name)
        return path.read_text(errors="replace") if path.exists() else ""

    def send(self, number: int) -> None:
        if self.code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, seconds: float = 300) -> int:
        """Its code; after `seconds` it is killed and the test fails."""
        self._process.join(seconds)
        if self.code is None:
            self.kill()
            raise AssertionError(f"it did not end in {seconds} s: {self.output} {self.errors}")
        return self.code

    def until(self, pattern: str, seconds: float = 120) -> re.Match[str]:
        """The first match in its output, lines taken one by one, as soon as it is there."""
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.output, re.MULTILINE)) is None:
            assert self.code is None, f"it ended: {self.output} {self.errors}"
            assert time.monotonic() < end, f"not in {seconds} s: {self.output} {self.errors}"
            time.sleep(0.005)
        return found


def vpo(*arguments: object, **options: Any) -> Fork:
    """``vpo ARGUMENTS``; see `Fork` for the options."""
    return Fork(_vpo, [str(argument) for argument in arguments], **options)


def side_by_side(count: int, start: Callable[..., Fork], **variables: str) -> list[Fork]:
    """`count` of ``start(environment=...)`` with the variables that torchrun and ``accelerate launch`` set."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(port), **variables}
    return [start(environment={**common, "RANK": str(i), "LOCAL_RANK": str(i)}) for i in range(count)]


def _vpo(arguments: list[str]) -> None:
    from vpo_kit.cli import main

    sys.argv = ["vpo", *arguments]
    main(arguments)


def _begin(
    folder: str, place: str, variables: dict[str, str], leads: bool, target: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:  # fmt: skip
    """In the new process: its environment and its files, and then the target."""
    assert "tests.support.preloaded" in sys.modules, "an import of it failed, which multiprocessing does not say"
    if leads:
        os.setsid()
    os.chdir(place)
    os.environ.clear()
    os.environ.update(variables)
    for number, name in ((1, "output"), (2, "errors")):
        file = os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    torch.set_num_threads(int(variables["OMP_NUM_THREADS"]))
    target(*arguments)
