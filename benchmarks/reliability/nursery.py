"""Many short runs of the command line, each in a process of its own, without the seconds that imports take.

One process imports everything and then runs nothing itself: each command runs in a fork of it, as ``vpo`` would in a
process of its own, and can be killed without harm to the next.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

ROOT = Path(__file__).parent.parent.parent
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "open", "shutil.rmtree"}
"""Python's audit events that touch a file."""

PLACES = {
    "checkpoints.save", "checkpoints.prune", "checkpoints.latest", "from_rollouts._roll_out", "editing._denoise",
    "noised.see_reference", "run_folder.append", "run_folder.rewind", "run_folder.start", "lora.export",
    "samples.evaluate", "unfinished.drop",
    "train._finish", "offline.validate", "editing.validate", "sft.validate", "loop._update",
}  # fmt: skip


@dataclass(frozen=True)
class Trap:
    """Where a process is killed: at the `at`-th event of a kind, or after `at` seconds.

    ``file`` is an opening, renaming or removing of a file in the run's folder, ``pass`` a pass through the network.
    """

    kind: Literal["file", "pass", "time"]
    at: float
    place: str | None = None
    """Count only the events in this function, one of `PLACES`."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: `code` is negative for a signal; events are those up to its end, where it lived to tell."""

    code: int
    output: str
    seconds: float
    files: int = 0
    passes: int = 0
    during: str = ""
    """The function of this package that a trap for files or passes fell into."""

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Nursery:
    """A context: the process that commands are forked from. Its torch has one thread, as a fork must."""

    def __enter__(self) -> Nursery:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.reliability.nursery"], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        trap: Trap | None = None,
        limit: float = 120,
        max_file_bytes: int | None = None,
        obedient: bool = False,
    ) -> Ended:
        """``vpo ARGUMENTS``, whose files are in `folder`; a fork that needs more than `limit` seconds is killed and
        has the code -9 without a trap. With `max_file_bytes` no file can grow larger, as on a disk that is full; with
        `obedient` modes of files hold for root too.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {
            "arguments": list(arguments), "folder": str(folder), "trap": asdict(trap) if trap else None,
            "limit": limit, "max_file_bytes": max_file_bytes, "obedient": obedient,
        }  # fmt: skip
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


def _serve(orders: IO[str], answers: IO[str]) -> None:
    import diffusers
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401
    import torch

    import vpo_kit.library.train
    import vpo_kit.models.wan
    import vpo_kit.rewards.vqa  # noqa: F401
    from vpo_kit.registry import METHODS

    for name in METHODS.targets():
        METHODS.load(name)
    assert diffusers.WanPipeline  # which imports it
    torch.set_num_threads(1)
    for line in orders:
        answers.write(json.dumps(asdict(_fork(json.loads(line)))) + "\n")
        answers.flush()


def _fork(order: dict[str, Any]) -> Ended:
    began = time.monotonic()
    read, write = os.pipe()
    log, logged = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.close(log)
        _child(order, write, logged)
    os.close(write)
    os.close(logged)
    trap = order["trap"]
    ends = trap["at"] if trap and trap["kind"] == "time" else order["limit"]
    output = _follow(child, log, began + ends)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(read) as pipe:
        counts = json.loads(pipe.read() or "{}")
    return Ended(os.waitstatus_to_exitcode(status), output, time.monotonic() - began, **counts)


def _follow(child: int, log: int, ends: float) -> str:
    """What the child prints, until it closes its output; it is killed when its time is over."""
    os.set_blocking(log, False)
    parts, alive = [], True
    while alive:
        try:
            part = os.read(log, 65536)
            parts.append(part)
            alive = bool(part)
        except BlockingIOError:
            # ffmpeg may hold the output open for a moment longer than the child that was killed
            alive = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            if alive and time.monotonic() > ends:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)
    os.close(log)
    return b"".join(parts).decode(errors="replace")


def _child(order: dict[str, Any], counts: int, log: int) -> None:
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code, seen = 1, {"files": 0, "passes": 0}
    try:
        _watch(order["folder"], order["trap"], seen, counts)
        if order["max_file_bytes"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["max_file_bytes"],) * 2)
        if order["obedient"]:
            _obey()
        from vpo_kit.cli import main

        main(order["arguments"])
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(counts, json.dumps(seen).encode())
        os._exit(code)


def _watch(folder: str, trap: dict[str, Any] | None, seen: dict[str, int], counts: int) -> None:
    """Count files and passes, and kill this process at the event that the trap names."""
    import diffusers
    from torch.nn.modules.module import register_module_forward_pre_hook

    left = trap["at"] if trap else 0

    def count(kind: str, name: str) -> None:
        nonlocal left
        seen[name] += 1
        if not trap or trap["kind"] != kind or trap["place"] not in (None, _place()):
            return
        left -= 1
        if left == 0:
            os.write(counts, json.dumps({**seen, "during": _place()}).encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES and isinstance(arguments[0], str | os.PathLike) and str(arguments[0]).startswith(folder):
            count("file", "files")

    def passed(module: Any, _: Any) -> None:
        if isinstance(module, diffusers.ModelMixin):
            count("pass", "passes")

    sys.addaudithook(audited)
    register_module_forward_pre_hook(passed)


def _obey() -> None:
    """Give up root's right to read and write everything, for good."""
    import ctypes

    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    sets = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for i in (0, 1):  # effective and permitted: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
        sets[i] &= ~0b110
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def _place() -> str:
    """The innermost of this package's functions that says what a run is about, or else the innermost at all."""
    frame, found = sys._getframe(), []
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("vpo_kit."):
            found.append(f"{module.rpartition('.')[2]}.{frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return next((name for name in found if name in PLACES), found[0] if found else "")


if __name__ == "__main__":
    _serve(sys.stdin, os.fdopen(os.dup(1), "w"))
