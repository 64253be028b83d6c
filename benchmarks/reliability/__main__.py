"""``python -m benchmarks.reliability``: kills and damaged inputs in numbers, into results/reliability.json and docs.

The file is written after each part, and a part that is in it with the same seed and count is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import facts
from benchmarks.reliability import kills
from benchmarks.reliability.fuzz import fuzz
from benchmarks.reliability.nursery import ROOT, Nursery
from benchmarks.reliability.targets import TARGETS
from tests.support.offline_run import make_set
from vpo_kit import files

RESULTS = Path(__file__).parent.parent / "results" / "reliability.json"
DOCS = ROOT / "docs" / "reliability.md"
COSTLY = {"lora_file": 10, "model_folder": 10, "clip_listing": 10, "video_file": 10, "pair_tools": 2, "pair_set": 2,
          "foreign_set": 10, "changed_data": 5}  # fmt: skip
"""Targets whose cases take up to a second: so many times fewer of them."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kill points of each method; 0 leaves them out")
    parser.add_argument("--cases", type=int, default=2000, help="damaged inputs of each target; 0 leaves them out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="methods and targets")
    parser.add_argument("--again", action="store_true", help="also what is in the file already")
    given = parser.parse_args()
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for row in [row for kind in ("kills", "fuzz") for row in found.get(kind, {}).values()]:
        row.setdefault("commit", found.get("commit"))  # of a file whose parts did not say

    def part(kind: str, name: str, wanted: dict[str, int], make: Callable[[], dict[str, Any]]) -> None:
        old = found.get(kind, {}).get(name, {})
        if given.only and name not in given.only:
            return
        if given.again or any(old.get(key) != value for key, value in wanted.items()) or not old["ok"]:
            began = time.monotonic()
            made, known = make(), facts.facts()
            # each with its own commit: parts are made on many days, and the facts of the file are of its newest
            own = {"seconds": round(time.monotonic() - began, 1), "commit": known["commit"], "date": known["date"]}
            found.setdefault(kind, {})[name] = {**wanted, **made, **own}
            found.update(known)
            _write(found)
        row = found[kind][name]
        print(f"{kind:6} {name:16} {'ok' if row['ok'] else 'WRONG'}  {row['seconds']:.0f} s", flush=True)

    if given.kills:
        with tempfile.TemporaryDirectory(prefix="vpo-kills-") as place, Nursery() as nursery:
            pairs = make_set(Path(place) / "pairs", shape=kills.LATENTS, model="sprites")
            for method in kills.METHOD_NAMES:
                folder, wanted = Path(place) / method, {"kill_points": given.kills, "seed": given.seed}
                case = kills.Case(method, pairs, measured=True)
                part("kills", method, wanted, lambda: _killed(nursery, case, folder, given.kills, given.seed))  # noqa: B023
                shutil.rmtree(folder, ignore_errors=True)
    if given.cases:
        for target in TARGETS:
            count = max(1, given.cases // COSTLY.get(target, 1))
            part("fuzz", target, {"cases": count, "seed": given.seed}, lambda: _fuzzed(target, count, given.seed))  # noqa: B023
    rows = [row for kind in ("kills", "fuzz") for row in found.get(kind, {}).values()]
    return 0 if all(row["ok"] for row in rows) else 1


def _killed(nursery: Nursery, case: kills.Case, folder: Path, count: int, seed: int) -> dict[str, Any]:
    trials = kills.series(nursery, case, folder, count, seed)
    during = Counter(place for trial in trials for place in trial.during)
    wrong = [asdict(trial) for trial in trials if trial.problem]
    killed = sum(trial.kills for trial in trials)
    return {
        "ok": not wrong and killed == count,
        "killed": killed,
        "during": dict(sorted(during.items())),
        "wrong": wrong,
    }


def _fuzzed(target: str, count: int, seed: int) -> dict[str, Any]:
    outcome = fuzz(target, count, seed)
    about = (TARGETS[target].__doc__ or "").strip().splitlines()[0]
    return {
        "ok": not outcome.findings and outcome.cases == count, "about": about, "refused": outcome.refused,
        "slowest_s": round(outcome.slowest_s, 2), "findings": [asdict(finding) for finding in outcome.findings],
    }  # fmt: skip


def _write(found: dict[str, Any]) -> None:
    text = json.dumps(found, indent=1).replace(f"{ROOT}/", "")  # tracebacks name files by where they are here
    files.write(RESULTS, text + "\n")
    for kind, table in (("kills", _kill_table), ("fuzz", _fuzz_table)):
        if kind in found:
            facts.fill(DOCS, f"<!-- {kind} -->\n", "<!-- end -->", table(found[kind]))


def _kill_table(rows: dict[str, Any]) -> str:
    lines = ["| method | killed | ended as undisturbed | what the kills interrupted |", "|---|---|---|---|"]
    for name, row in rows.items():
        during = ", ".join(f"{place} {count}" for place, count in row["during"].items())
        lines.append(f"| {name} | {row['killed']} | {row['killed'] - len(row['wrong'])} | {during} |")
    return "\n".join(lines) + "\n"


def _fuzz_table(rows: dict[str, Any]) -> str:
    lines = ["| target | what | cases | refused | slowest | findings |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        counts = f"{row['cases']} | {row['refused']} | {row['slowest_s']:g} s | {len(row['findings'])}"
        lines.append(f"| {name} | {row['about']} | {counts} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
