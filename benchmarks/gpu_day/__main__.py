"""``python -m benchmarks.gpu_day``: everything worth knowing about a card, in `--minutes`, the most valuable first.

Each part runs in processes of its own with a limit for each case, and writes its rows into ``--output`` as they come:
at most eight small files. ``--rehearse`` runs all of it on a processor, with one layer of each real network.
``--plan`` estimates the real architectures' cases beforehand (``benchmarks/results/gpu/estimates.json``), and
``--collect FOLDER --name NAME`` makes ``benchmarks/results/gpu/NAME.json`` and the tables of docs/gpu.md of an output.
``--wheels`` makes the list of packages anew that a machine without network is brought (``wheels.txt``).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu_day import jobs, wheels
from benchmarks.gpu_day.crew import Crew, Part
from benchmarks.gpu_day.outcome import Outcome
from benchmarks.gpu_day.protocol import Options
from benchmarks.gpu_day.stages import stages, wanted

MARGIN = 5.0
"""Seconds before the end at which everything is stopped."""


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if given.plan:
        from benchmarks.gpu_day import estimates

        estimates.main(given.cases)
        return 0
    if given.collect is not None:
        from benchmarks.gpu_day import page

        return page.collect_into(given.collect, given.name, given.commit)
    if given.tables:
        from benchmarks.gpu_day import page

        page.fill()
        return 0
    if given.wheels:
        wheels.write()
        return 0
    if absent := wheels.missing():
        print(f"not installed: {' '.join(absent)}; pip install --no-index --no-deps --find-links wheels "
              f"{' '.join(absent)}, with the wheels of {wheels.LIST.name} (docs/gpu.md)", file=sys.stderr)  # fmt: skip
        return 2
    lines = given.jobs.read_text(encoding="utf-8").splitlines() if given.jobs else []
    if not given.output:
        print("--output: name a folder for the results", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        options = Options(
            given.rehearse, Path(scratch), tuple(given.families), given.cases,
            tuple(str(folder.resolve()) for folder in given.model), tuple(line for line in lines if line.strip()),
        )  # fmt: skip
        outcome = Outcome(given.output, given.minutes)
        every = stages(outcome.left, xformers=given.xformers, together=given.together, rehearse=given.rehearse)
        something = {"published": bool(options.models), "jobs": bool(options.jobs)}
        return run(wanted(every, given.parts, something), options, outcome)


def run(plan: list[list[Part]], options: Options, outcome: Outcome) -> int:
    """Stage after stage; while one runs, the workers of the next one import what they need."""

    def crews_of(number: int) -> list[Crew]:
        return [
            Crew(part, options, outcome.log_file, outcome.row) for part in (plan[number] if number < len(plan) else [])
        ]

    crews = crews_of(0)
    for number in range(1, len(plan) + 1):
        outcome.log(f"begins: {', '.join(crew.part.module for crew in crews)}")
        for crew in crews:
            crew.begin()
        following = crews_of(number)
        while crews and outcome.left > MARGIN:
            crews = [crew for crew in crews if crew.turn()]
            time.sleep(0.05)
        if outcome.left <= MARGIN:
            for crew in (*crews, *following):
                crew.stop("stopped: the day is over")
            break
        crews = following
    return _close(options, outcome)


def _close(options: Options, outcome: Outcome) -> int:
    for case, row in jobs.left_behind(options):
        outcome.row("jobs", case, row)
    for text in outcome.failed:
        outcome.log(f"FAILED {text}")
    outcome.log(f"over: {len(outcome.failed)} cases without a result")
    return int(bool(outcome.failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_day", description="What a card can do, in minutes.")
    parser.add_argument("--minutes", type=float, default=8.0, help="hard end of the day")
    parser.add_argument("--output", type=Path, help="folder for the results, at most eight small files")
    parser.add_argument("--rehearse", action="store_true", help="on a processor, with one layer of each real network")
    parser.add_argument("--model", type=Path, action="append", default=[], help="a folder of published weights")
    parser.add_argument("--jobs", type=Path, help="command lines that fill what is left of the time")
    parser.add_argument("--together", type=int, default=4, help="how many of them run side by side")
    parser.add_argument("--xformers", default="", help="a folder with xformers, which only its own case sees")
    parser.add_argument("--commit", default="", help="the commit, where git cannot say")
    parser.add_argument("--parts", nargs="*", default=[], help="only these files of results")
    parser.add_argument("--families", nargs="*", default=[], help="only these tiny pipelines")
    parser.add_argument("--cases", default="", help="only the real architectures' cases with this in their names")
    parser.add_argument("--plan", action="store_true", help="estimate the real architectures' cases, beforehand")
    parser.add_argument("--collect", type=Path, help="make a result for the docs of this output")
    parser.add_argument("--tables", action="store_true", help="make the tables of the docs anew")
    parser.add_argument("--wheels", action="store_true", help="make the list of wheels to bring anew")
    parser.add_argument("--name", default="", help="of that result")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
