"""From a day's output to a result and the tables of docs/gpu.md: measured beside estimated.

``python -m benchmarks.gpu_day --collect FOLDER --name NAME`` writes ``benchmarks/results/gpu/NAME.json``; the tables
have all such results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import facts
from benchmarks.gpu_day import estimates

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
BEGIN, END = "<!-- measured: python -m benchmarks.gpu_day -->", "<!-- end of measured -->"
FILES = ("environment", "parity", "tests", "steps", "embedded", "models", "jobs")
PEAK = 0.15
"""How far a measured peak may be from its estimate."""


def collect_into(folder: Path, name: str, commit: str) -> int:
    """Write the result and fill the tables; the exit code. A rehearsal gives none."""
    found = collect(folder, commit)
    if found["machine"]["card"].startswith("none"):
        print(f"{folder} is a rehearsal's: no result", file=sys.stderr)
        return 2
    if not name or name == "estimates" or not found["commit"]:
        print("--name NAME: what to call the result; --commit HASH: what was measured", file=sys.stderr)
        return 2
    target = facts.RESULTS / "gpu" / f"{name}.json"
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    fill()
    return 0


def collect(folder: Path, commit: str) -> dict[str, Any]:
    """One result of a day's files: the machine's facts at the top, each step beside its estimate."""
    rows = {name: _rows(folder / f"{name}.json") for name in FILES}
    machine = rows["environment"].get("machine", {})
    rates = rows["environment"].get("rates", {})
    known = estimates.known()
    steps = {case: beside(row, known.get(case), rates.get("bfloat16")) for case, row in rows["steps"].items()}
    kept = {name: found for name, found in {**rows, "steps": steps}.items() if found and name != "environment"}
    return {
        "commit": commit, "date": machine.get("date"), "versions": machine.get("versions"),
        "command": "python -m benchmarks.gpu_day", "machine": machine, "rates": {**rates, "shown": shown_rates(rates)},
        **kept,
    }  # fmt: skip


def beside(row: dict[str, Any], estimate: dict[str, Any] | None, rate: float | None) -> dict[str, Any]:
    """A measured step with what was estimated for it, and the figures that the tables show: seconds, the share of the
    card's rate in bfloat16 products that the estimated arithmetic comes to, GB at the peak, measured and estimated.
    """
    shown: dict[str, Any] = {}
    if "seconds" in row:
        shown["seconds"] = float(f"{row['seconds']:.3g}")
    if "allocated" in row and "seconds" in row:
        shown["peak"] = estimates.gigabytes(row["allocated"])
        shown["reserved"] = estimates.gigabytes(row["reserved"])
    if estimate is not None:
        shown["estimate"] = estimate["shown"]["peak"]
        if "seconds" in row and rate:
            shown["share"] = round(estimate["flops"] / row["seconds"] / rate, 2)
        if "peak" in shown:
            shown["ratio"] = round(row["allocated"] / estimate["peak"], 2)
            shown["within"] = abs(row["allocated"] / estimate["peak"] - 1) <= PEAK
    return {**row, "shown": shown}


def shown_rates(rates: dict[str, Any]) -> dict[str, float]:
    """TFLOP/s of the products and the convolution."""
    names = ("bfloat16", "float16", "float32", "float32, TF32", "convolution, bfloat16")
    return {name: float(f"{rates[name] / 1e12:.3g}") for name in names if name in rates}


def fill() -> None:
    """The tables of all results in docs/gpu.md, or that there are none."""
    files = [file for file in sorted((facts.RESULTS / "gpu").glob("*.json")) if file.stem != "estimates"]
    parts = [_tables(file.stem, json.loads(file.read_text(encoding="utf-8"))) for file in files]
    facts.fill(PAGE, BEGIN, END, "\n\n" + ("\n".join(parts) if parts else _nothing()) + "\n")


def _nothing() -> str:
    """The cases with their estimates alone."""
    lines = ["**Not measured**: no card has been at hand so far.", "", *HEADER]
    return "\n".join([*lines, *(_unmeasured(case, row) for case, row in estimates.known().items())]) + "\n"


def _unmeasured(case: str, row: dict[str, Any]) -> str:
    return f"| {case} | not measured | | | {row['shown']['peak']:.1f} | |"


HEADER = [
    "| step | seconds | share of the bf16 rate | peak GB, measured | estimated | ratio |",
    "|---|--:|--:|--:|--:|--:|",
]


def _tables(name: str, found: dict[str, Any]) -> str:
    machine, versions = found["machine"], found["versions"]
    rates = ", ".join(f"{key} {value:g}" for key, value in found["rates"]["shown"].items())
    lines = [
        f"### {machine['card']}", "",
        f"`benchmarks/results/gpu/{name}.json`: commit `{found['commit']}`, torch `{versions['torch']}`, "
        f"driver `{machine.get('driver', 'unknown')}`. TFLOP/s in products: {rates}. "
        "Estimates: `benchmarks/results/gpu/estimates.json`.", "",
    ]  # fmt: skip
    lines += [_parity(found.get("parity", {})), _tests(found.get("tests", {})), "", *HEADER]
    steps = found.get("steps", {})
    lines += [_line(case, row) for case, row in steps.items()]
    lines += [_unmeasured(case, row) for case, row in estimates.known().items() if case not in steps]
    return "\n".join([*lines, "", *_embedded(found.get("embedded", {}))])


def _line(case: str, row: dict[str, Any]) -> str:
    shown = row["shown"]
    if "seconds" not in shown:
        why = str(row.get("left out") or row.get("error") or "no result").partition(":")[0]
        return f"| {case} | {why} | | | {shown.get('estimate', '')} | |"
    cells = [shown.get(key, "") for key in ("seconds", "share", "peak", "estimate", "ratio")]
    return f"| {case} | {' | '.join(str(cell) for cell in cells)} |"


def _parity(rows: dict[str, Any]) -> str:
    wrong = [name for name, row in rows.items() if "error" in row]
    text = f"Parity with the pipelines and the processor: {len(rows) - len(wrong)} of {len(rows)} tiny families"
    return f"{text}{'; not: ' + ', '.join(wrong) if wrong else ''}."


def _tests(rows: dict[str, Any]) -> str:
    kinds = ("passed", "failed", "skipped")
    counts = [f"{row[kind]} {kind}" for row in rows.values() for kind in kinds if kind in row]
    why = next((row["error"] for row in rows.values() if "error" in row), "")
    return f"Tests that need a card: {', '.join(counts) or 'no result'}{f' ({why})' if why else ''}."


def _embedded(rows: dict[str, Any]) -> list[str]:
    """The demo's seconds here and there."""
    lines = [f"| {where} | {row['seconds']:g} | {row['steps']} |" for where, row in rows.items() if "seconds" in row]
    head = ["The demo of the embedded model, measurements included:", "", "| | seconds | steps |", "|---|--:|--:|"]
    return [*head, *lines, ""] if lines else []


def _rows(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else {}
    return found
