"""Command lines that fill the rest of the time, several side by side: long runs of the claims, for one.

``{job}`` in a line is that job's own folder; every ``summary.json`` that it leaves there is kept, of a job that was
stopped too.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.crew import ROOT
from benchmarks.gpu_day.protocol import Options

ENDED = ".ended"
LARGEST = 2**18
"""Bytes of a summary that is kept."""


def cases(options: Options) -> dict[str, float]:
    """As long as the day lasts: the one who starts them ends them."""
    return {f"{number}: {line}": 1e6 for number, line in enumerate(options.jobs, 1)}


def run(case: str, options: Options) -> dict[str, Any]:
    number, _, line = case.partition(": ")
    folder = options.scratch / "jobs" / number
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["bash", "-c", line.replace("{job}", str(folder))], cwd=ROOT, check=False)
    (folder / ENDED).touch()
    found: dict[str, Any] = {"code": done.returncode, "summaries": summaries(folder)}
    return {**found, **({"error": f"ended with code {done.returncode}"} if done.returncode else {})}


def left_behind(options: Options) -> Iterator[tuple[str, dict[str, Any]]]:
    """What jobs that were stopped have left: their summaries, and the last row of each log."""
    for folder in sorted((options.scratch / "jobs").glob("*")):
        logs = [file for file in sorted(folder.rglob("metrics.jsonl")) if file.stat().st_size]
        last = {str(file.relative_to(folder)): file.read_text(encoding="utf-8").splitlines()[-1] for file in logs}
        if not (folder / ENDED).exists():
            yield f"{folder.name}: stopped", {"summaries": summaries(folder), "last": last}


def summaries(folder: Path) -> dict[str, Any]:
    files = (file for file in sorted(folder.rglob("summary.json")) if file.stat().st_size <= LARGEST)
    return {str(file.relative_to(folder)): json.loads(file.read_text(encoding="utf-8")) for file in files}
