"""``make bench``: what the toolkit adds to the work that has to be done, and saves of it, as ratios.

``python -m benchmarks.speed`` measures all and writes ``benchmarks/results/speed.json`` and the table in
``docs/performance.md``; with names of rows (`ROWS`) it measures those anew and keeps the others, each with the commit
that it was measured at. The exit code is 1 where an aim is missed. One thread, on the embedded model, about ten
minutes on a machine that does nothing else.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import facts
from benchmarks.speed.timing import ROOT, Row

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- table: python -m benchmarks.speed -->", "<!-- end of table -->"
ROWS = {
    "offline": "steps:offline",
    "online": "steps:online",
    "instruct": "steps:instruct",
    "rollouts": "rollouts:rollouts",
    "trainers": "trainers:trainers",
    "gradient": "gradient:one_step_of_all",
    "parts": "parts:parts",
    "growth": "growth:growth",
    "processes": "two:two_processes",
    "help": "start:start",
}


def measure(names: Sequence[str], console: Console) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        module, _, function = ROWS[name].partition(":")
        started = time.monotonic()
        rows += getattr(importlib.import_module(f"benchmarks.speed.{module}"), function)()
        console.print(f"{name}: {time.monotonic() - started:.0f} s", style="dim")
    return rows


def table(rows: Sequence[Row]) -> Table:
    shown = Table("what", "against", "aim", "ratio", "")
    for row in rows:
        shown.add_row(row.what, row.against, row.bound, f"{row.ratio:.3f}", "ok" if row.met else "missed")
    return shown


def write(rows: Sequence[Row]) -> None:
    """These rows into the results, in the place of older ones, and the table of all of them into the docs."""
    known = json.loads((facts.RESULTS / "speed.json").read_text(encoding="utf-8"))["rows"]
    now = {key: facts.facts()[key] for key in ("commit", "date")}
    found = {row["what"]: row for row in known} | {row.what: {**now, **asdict(row), "met": row.met} for row in rows}
    facts.write("speed", {"command": "python -m benchmarks.speed", "rows": list(found.values())})
    lines = ["| what | against | aim | result | commit |", "|---|---|---|---|---|"]
    for row in found.values():
        bound = Row(row["what"], row["against"], row["ratio"], row["aim"], row["at_most"]).bound
        lines.append(f"| {row['what']} | {row['against']} | {bound} | {row['ratio']:g} | `{row['commit']}` |")
    facts.fill(PAGE, BEGIN, END, "\n".join(["", *lines, ""]))


def main(names: Sequence[str]) -> int:
    unknown = set(names) - set(ROWS)
    if unknown:
        print(f"no row {min(unknown)!r}: there are {', '.join(ROWS)}", file=sys.stderr)
        return 2
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that rows start
    torch.set_num_threads(1)
    console = Console()
    rows = measure(names or list(ROWS), console)
    console.print(table(rows))
    console.print_json(json.dumps({row.what: dict(row.details) for row in rows}))
    write(rows)
    return int(not all(row.met for row in rows))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
