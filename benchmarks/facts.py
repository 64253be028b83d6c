"""What a result rests on beside its numbers, and where it is written."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vpo_kit import files
from vpo_kit.evaluation.report import versions

RESULTS = Path(__file__).parent / "results"


def facts() -> dict[str, Any]:
    """Commit, day, machine, threads and versions."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    return {
        "commit": commit.strip(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def write(name: str, found: Mapping[str, Any]) -> None:
    """`found` with the facts as ``results/NAME.json``, whole or not at all."""
    files.write(RESULTS / f"{name}.json", json.dumps({**facts(), **found}, indent=2) + "\n")


def fill(page: Path, begin: str, end: str, text: str) -> None:
    """Put `text` between two marks of a page of the docs, in the place of what is there. Raises `ValueError` where the
    page has no such marks: they stand under a heading, which nobody but a writer can choose.
    """
    before, mark, rest = page.read_text(encoding="utf-8").partition(begin)
    if not mark or end not in rest:
        raise ValueError(f"{page} has no marks {begin.strip()} {end}")
    page.write_text(f"{before}{begin}{text}{end}{rest.partition(end)[2]}", encoding="utf-8")
