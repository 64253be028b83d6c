"""What runs when: stages one after the other, the parts of a stage side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping

from benchmarks.gpu_day.crew import Part

FAMILY_WORKERS = 4
ASIDE = {"GPU_DAY_WHERE": "processor"}


def stages(seconds: float, *, xformers: str, together: int, rehearse: bool) -> list[list[Part]]:
    """Timings have the card to themselves; beside them runs only what needs the processor alone. What a stage leaves of
    its time goes to the last one.
    """
    workers = 2 if rehearse else FAMILY_WORKERS
    extra = {"PYTHONPATH": os.pathsep.join([xformers, os.environ.get("PYTHONPATH", "")])}
    timings = [Part("steps", "steps", 0.5 * seconds), *([Part("backends", "steps", 60, 1, extra)] if xformers else [])]
    first, *others = timings
    return [
        [Part("environment", "environment", 0.25 * seconds)],
        [Part("parity", "parity", 0.25 * seconds, workers), Part("tests", "tests", 0.25 * seconds)],
        [first, *([] if rehearse else [Part("embedded", "embedded", 0.5 * seconds, 1, ASIDE)])],
        *([part] for part in others),
        [Part("embedded", "embedded", 0.25 * seconds)],
        [Part("published", "models", seconds)],
        [Part("jobs", "jobs", seconds, together)],
    ]


def wanted(plan: list[list[Part]], files: list[str], given: Mapping[str, bool]) -> list[list[Part]]:
    """The stages with parts in them: those of `files` (none: all) that have anything to do."""
    kept = [
        [part for part in stage if (not files or part.file in files) and given.get(part.module, True)] for stage in plan
    ]
    return [stage for stage in kept if stage]
