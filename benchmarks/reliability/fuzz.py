"""Damaged inputs against the code that reads them: each case ends in a result or in one `VpoError`, and soon.

A target makes sound input once, and then reads damaged copies of it. What it may raise is a `VpoError` of one line;
all else is a finding, and so is a case that takes longer than `LIMIT_S`.
"""

from __future__ import annotations

import errno
import io
import random
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reliability.targets import TARGETS
from benchmarks.reliability.targets.stage import Stage
from vpo_kit.errors import VpoError

LIMIT_S = 10.0
"""Of processor time; six times as many of the clock's."""


class _EndlessError(BaseException):
    """Raised by the alarm; not an `Exception`, which some code under test may catch."""


@dataclass(frozen=True)
class Finding:
    """A case that went wrong: its target and number give it back under the same seed."""

    target: str
    case: int
    what: str


@dataclass(frozen=True)
class Outcome:
    """Cases of one target: `refused` ended in an error for the user, the others were read."""

    target: str
    cases: int
    refused: int
    slowest_s: float
    findings: list[Finding]


def fuzz(name: str, cases: int, seed: int, most_findings: int = 10) -> Outcome:
    """`cases` damaged inputs of the target `name`."""
    refused, slowest, findings = 0, 0.0, list[Finding]()
    with tempfile.TemporaryDirectory(prefix="vpo-fuzz-") as folder, _quiet():
        read = TARGETS[name](Path(folder))
        for case in range(3):  # a target that refuses everything would find nothing
            stage = Stage(Path(folder) / "case", random.Random(f"{seed}/{name}/sound/{case}"), sound=True)
            read(stage)
            stage.clear()
        for case in range(cases):
            stage = Stage(Path(folder) / "case", random.Random(f"{seed}/{name}/{case}"))
            began = time.process_time()
            try:
                with _limit():
                    refused += _refused(read, stage)
            except _EndlessError:
                findings.append(Finding(name, case, f"not done after {LIMIT_S:g} s:\n{traceback.format_exc()}"))
            except Exception:
                findings.append(Finding(name, case, traceback.format_exc()))
            finally:
                stage.clear()
            slowest = max(slowest, time.process_time() - began)
            if len(findings) == most_findings:
                break
    return Outcome(name, case + 1, refused, slowest, findings)


def _refused(read: Callable[[Stage], None], stage: Stage) -> bool:
    try:
        read(stage)
    except VpoError as error:
        if not str(error).strip():
            raise AssertionError("an error without a word") from error
        return True
    except OSError as error:  # of a path of thousands of letters; `vpo_kit.cli.main` makes one line of it
        if error.errno != errno.ENAMETOOLONG:
            raise
        return True
    return False


@contextmanager
def _limit() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _EndlessError

    # of the processor's time, which a busy machine does not stretch; and of the clock's, for what only waits
    timers = ((signal.ITIMER_PROF, signal.SIGPROF, LIMIT_S), (signal.ITIMER_REAL, signal.SIGALRM, 6 * LIMIT_S))
    before = [signal.signal(number, ring) for _, number, _ in timers]
    for timer, _, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Damaged files make libraries talk; a log is no finding."""
    import logging

    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
