"""A copy of the tree in which tests run, each time in a fork of a process that has imported what they all need.

That process imports nothing of this project, which its forks read from the copy as it is then. Tests without a fault
write the bytecode that the others read; a file with a fault has a time of its own, so that none is read for it.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

FAILED, INTERRUPTED = 1, 2
"""Exit codes of pytest: a test failed, or could not be imported."""
LIBRARIES = ("accelerate", "matplotlib.pyplot", "open_clip", "peft", "pydantic", "pytest", "torchvision", "typer")
HARMLESS = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
"""A warning about plugins of libraries that were there before pytest looked for them."""
LATER = 10_000
"""Seconds by which a file with a fault is newer than its bytecode."""


@dataclass(frozen=True)
class Tried:
    """How tests ended: the exit code of pytest, None where they were ended at their limit; and their last lines."""

    code: int | None
    seconds: float
    shown: str

    @property
    def failed(self) -> bool:
        """Whether some test noticed: by failing, by not being importable, or by not coming to an end."""
        return self.code in (FAILED, INTERRUPTED, None)


class Grounds:
    """A context: the tree of a git repository at a commit, in a folder of its own. Without the `libraries` forks import
    what they need themselves.
    """

    def __init__(self, repository: Path, commit: str, *, libraries: bool = True) -> None:
        self._repository, self._commit, self._libraries = repository, commit, libraries

    def __enter__(self) -> Grounds:
        self._place = tempfile.mkdtemp(prefix="vpo-planted-")
        self.root = Path(self._place) / "tree"
        self.root.mkdir()
        archived = subprocess.run(
            ["git", "archive", self._commit], cwd=self._repository, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x"], cwd=self.root, input=archived.stdout, check=True)
        own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(self.root)}
        command = [sys.executable, "-P", str(Path(__file__).resolve()), *["libraries"][: self._libraries]]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, cwd=self.root, env={**os.environ, **own}, text=True, **pipes)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()
        shutil.rmtree(self._place, ignore_errors=True)

    def run(self, tests: Sequence[str], limit: float, *, sound: bool = False) -> Tried:
        """Run the test files until the first failure, at most `limit` seconds; `sound` is without a fault."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"tests": list(tests), "limit": limit, "sound": sound}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Tried(**json.loads(self._process.stdout.readline()))

    @contextmanager
    def changed(self, file: str, text: str) -> Iterator[None]:
        """Inside, a file of the tree has another text."""
        path = self.root / file
        old, when = path.read_bytes(), path.stat().st_mtime
        try:
            path.write_text(text, encoding="utf-8")
            os.utime(path, (when + LATER, when + LATER))
            yield
        finally:
            path.write_bytes(old)
            os.utime(path, (when, when))


def _serve(orders: IO[str], answers: IO[str]) -> None:
    for line in orders:
        answers.write(json.dumps(asdict(_fork(json.loads(line)))) + "\n")
        answers.flush()


def _load() -> None:
    """Import what the tests need of others, once for all forks."""
    import gc
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LIBRARIES:
            importlib.import_module(name)
        import diffusers
        import torch
        import transformers

    assert diffusers.WanPipeline, "it is imported when it is first asked for"
    assert transformers.T5EncoderModel
    torch.set_num_threads(1)
    gc.freeze()


def _fork(order: dict[str, Any]) -> Tried:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vpo-planted-") as place:
        child = os.fork()
        if child == 0:
            _child(order, Path(place))
        code = _awaited(child, began + order["limit"])
        lines = (Path(place) / "output").read_text(errors="replace").splitlines()
    told = [line for line in lines if line.startswith(("FAILED", "ERROR"))] or lines[-1:]
    if code is None:
        told = [f"not done in {order['limit']:.0f} s"]
    return Tried(code, round(time.monotonic() - began, 1), told[0][:300] if told else "")


def _awaited(child: int, end: float) -> int | None:
    """The child's exit code; it and what it has started are killed at the `end`, and the code is then None."""
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _child(order: dict[str, Any], place: Path) -> None:
    code = 3
    try:
        os.setsid()
        log = os.open(place / "output", os.O_WRONLY | os.O_CREAT)
        for number in (1, 2):
            os.dup2(log, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        sys.dont_write_bytecode = not order["sound"]
        if not order["sound"]:
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        import pytest

        options = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider", f"--basetemp={place / 'tests'}", "-W", HARMLESS]
        code = int(pytest.main([*options, *order["tests"]]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if "libraries" in sys.argv:
        _load()
    _serve(sys.stdin, os.fdopen(os.dup(1), "w"))
    os._exit(0)  # libraries would say what they leak
