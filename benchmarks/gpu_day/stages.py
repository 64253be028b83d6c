"""What runs when: stages one after the other, the parts of a stage side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from benchmarks.gpu_day.crew import Part

FAMILY_WORKERS = 4
ASIDE = {"GPU_DAY_WHERE": "processor"}
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Of a rehearsal's workers: there are more of them than cores, and threads that wait for each other waste theirs."""


def stages(seconds: float, *, xformers: str, together: int, rehearse: bool) -> list[list[Part]]:
    """Timings have the card to themselves; beside them runs only what needs the processor alone. What a stage leaves of
    its time goes to the last one.
    """
    extra = {"PYTHONPATH": os.pathsep.join([xformers, os.environ.get("PYTHONPATH", "")])}
    timings = [Part("steps", "steps", 0.5 * seconds), *([Part("backends", "steps", 60, 1, extra)] if xformers else [])]
    first = [Part("environment", "environment", 0.25 * seconds)]
    demo = Part("embedded", "embedded", 0.25 * seconds)
    last = [[Part("published", "models", seconds)], [Part("jobs", "jobs", seconds, together)]]
    tests = Part("tests", "tests", 0.25 * seconds)
    if rehearse:  # nothing is timed, and a busy machine may take long
        every = (*first, Part("parity", "parity", seconds), tests, *timings, demo)
        alone, *beside = [replace(p, seconds=seconds, environment={**p.environment, **ONE_THREAD}) for p in every]
        return [[alone], beside, *last]
    return [
        first,
        [Part("parity", "parity", 0.25 * seconds, FAMILY_WORKERS), tests],
        [timings[0], Part("embedded", "embedded", 0.5 * seconds, 1, ASIDE)],
        *([part] for part in timings[1:]),
        [demo],
        *last,
    ]


def wanted(plan: list[list[Part]], files: list[str], given: Mapping[str, bool]) -> list[list[Part]]:
    """The stages with parts in them: those of `files` (none: all) that have anything to do."""
    kept = [
        [part for part in stage if (not files or part.file in files) and given.get(part.module, True)] for stage in plan
    ]
    return [stage for stage in kept if stage]
