"""What `vpo plan` says of exactly the cases that are measured: ``python -m benchmarks.gpu_day --plan``.

Made beforehand on a processor, in ``benchmarks/results/gpu/estimates.json``; what is in it already is kept, unless the
case's settings have changed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks import facts
from benchmarks.gpu_day.cases import CASES, Case
from vpo_kit.planning.rehearsal import rehearse

NAME = "gpu/estimates"
COMMAND = "python -m benchmarks.gpu_day --plan"


def known() -> dict[str, Any]:
    """The estimates that are there, by case."""
    file = facts.RESULTS / f"{NAME}.json"
    rows: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else {}
    return {case.name: rows[case.name] for case in CASES if rows.get(case.name, {}).get("settings") == case.settings}


def estimate(case: Case) -> dict[str, Any]:
    """Bytes at the peak of a training step without the text encoder, by part, and floating point operations of it."""
    found = rehearse(case.subject())
    parts = {part: size for part, size in found.phases["step"].items() if part != "text"}
    peak, s = sum(parts.values()), found.settings
    return {
        "settings": case.settings, "frames": s.frames, "height": s.height, "width": s.width,
        "parameters": found.parameters, "bytes": parts, "peak": peak, "flops": found.flops,
        "passes": found.passes, "shown": {"peak": gigabytes(peak), "PFLOP": round(found.flops / 1e15, 2)},
    }  # fmt: skip


def gigabytes(size: float) -> float:
    return round(size / 1e9, 1)


def main(text: str) -> None:
    """Estimate the cases whose names contain `text`, where that has not been done."""
    rows = known()
    for case in CASES:
        if text in case.name and case.name not in rows:
            made = {"commit": facts.facts()["commit"], **estimate(case)}
            rows = known() | {case.name: made}
            ordered = {one.name: rows[one.name] for one in CASES if one.name in rows}
            facts.write(NAME, {"command": COMMAND, "rows": ordered})
            print(case.name, made["shown"], file=sys.stderr)
