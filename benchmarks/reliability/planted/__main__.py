"""``python -m benchmarks.reliability.planted``: small faults, one at a time, against the fast tests nearest to them.

Faults are drawn by the seed from `PLACES` of a commit. Each has a line in a file of the output folder, so that a run
that was stopped goes on where it was, at the commit where it began. The nearest tests are chosen by `nearby`: of ten
files as many as run in ``--seconds`` without a fault, three at least. What survives them may still be caught by others:
its reason stands in ``survivors.yaml``, and what is equivalent does not count.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import facts
from benchmarks.reliability.nursery import ROOT
from benchmarks.reliability.planted.faults import Fault, faults
from benchmarks.reliability.planted.grounds import Grounds, Tried
from benchmarks.reliability.planted.nearby import neighbours
from vpo_kit import files

PLACES = (
    "losses.py", "links.py", "sampler.py", "schedule.py", "times.py", "stochastic.py", "methods", "training", "pairing",
    "rewards", "evaluation",
)  # fmt: skip
DOCS, REASONS = ROOT / "docs" / "reliability.md", Path(__file__).parent / "survivors.yaml"
REASONS_BEGIN = {"equivalent": "equivalent", "elsewhere": "held by", "since": "held since by"}
"""How a reason begins: nothing changes for anyone; a test further off was seen to fail; one written since does."""
LEAST_FILES, MOST_FILES = 3, 10
"""Test files of a module that are run whatever they take, and that are looked at at all."""
SOUND_LIMIT = 300.0
UNTESTED = Tried(0, 0.0, "no fast test is near")
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.planted", description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="faults that are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="of tests for each fault")
    parser.add_argument("--only", nargs="*", default=PLACES, help="files and folders below vpo_kit")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "planted")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    log = Log(given.output / f"seed-{given.seed}.jsonl")
    with Grounds(ROOT, log.commit) as grounds:
        drawn = draw(grounds.root, given.only, given.count, given.seed)
        trials = Trials(grounds, log, given.seconds)
        for number, fault in enumerate(drawn, 1):
            row = log.faults.get(fault.key) or trials.run(fault)
            print(f"{number:4} {'caught' if row['caught'] else 'SURVIVES'}  {fault.place}", flush=True)
    rows = [{**log.faults[fault.key], "place": fault.place} for fault in drawn]
    found = summary(rows, yaml.safe_load(REASONS.read_text(encoding="utf-8")) or {})
    own = {"commit": log.commit, "seed": given.seed, "seconds": given.seconds, "tests": "imports and mirrored names"}
    facts.write("reliability/planted", {**own, **found})
    facts.fill(DOCS, "<!-- planted -->\n", "<!-- end -->", table(found["files"]))
    return 0


class Log:
    """The lines of the faults that were tried, and of the test files without a fault, at the commit of the first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        rows = [json.loads(line) for line in lines]
        self.faults: dict[str, Row] = {row["fault"]: row for row in rows if "fault" in row}
        self.sound: dict[str, float | None] = {row["tests"]: row["seconds"] for row in rows if "tests" in row}
        if not rows:
            rows = [{"commit": _head()}]
            files.append(path, json.dumps(rows[0]))
        self.commit: str = rows[0]["commit"]

    def add(self, row: Row) -> Row:
        files.append(self._path, json.dumps(row))
        if "fault" in row:
            self.faults[row["fault"]] = row
        else:
            self.sound[row["tests"]] = row["seconds"]
        return row


class Trials:
    """Faults tried one after the other, each by the tests that it is near to."""

    def __init__(self, grounds: Grounds, log: Log, seconds: float) -> None:
        self._grounds, self._log, self._seconds = grounds, log, seconds
        self._tests = neighbours(grounds.root)

    def run(self, fault: Fault) -> Row:
        tests, seconds = self._nearest(fault.file)
        if not tests:  # pytest would run them all
            return self._log.add({"fault": fault.key, "kind": fault.kind, **self._told(UNTESTED, tests)})
        source = (self._grounds.root / fault.file).read_text(encoding="utf-8")
        with self._grounds.changed(fault.file, fault.planted(source)):
            tried = self._grounds.run(tests, 10 * seconds + 120)  # other work may slow it down
        return self._log.add({"fault": fault.key, "kind": fault.kind, **self._told(tried, tests)})

    def _told(self, tried: Tried, tests: Sequence[str]) -> Row:
        return {"caught": tried.failed, "by": tried.shown, "took": tried.seconds, "of": list(tests)}

    def _nearest(self, file: str) -> tuple[list[str], float]:
        """Test files that pass where nothing is wrong, and how long they take together."""
        chosen, total = list[str](), 0.0
        for _, test in self._tests.of(file)[:MOST_FILES]:
            if len(chosen) >= LEAST_FILES and total >= self._seconds:
                break
            own = self._sound(test)
            if own is not None and (len(chosen) < LEAST_FILES or total + own <= self._seconds):
                chosen.append(test)
                total += own
        return chosen, total

    def _sound(self, test: str) -> float | None:
        """The seconds of a test file where nothing is wrong, None where it fails or has no fast test."""
        if test not in self._log.sound:
            tried = self._grounds.run([test], SOUND_LIMIT, sound=True)
            self._log.add({"tests": test, "seconds": tried.seconds if tried.code == 0 else None, "said": tried.shown})
        return self._log.sound[test]


def draw(root: Path, places: Sequence[str], count: int, seed: int) -> list[Fault]:
    """`count` of the faults of the files in `places`, the same for the same seed and tree."""
    found = [root / "vpo_kit" / place for place in places]
    paths = sorted({path for one in found for path in ([one] if one.is_file() else one.rglob("*.py"))})
    every = [fault for p in paths for fault in faults(p.relative_to(root).as_posix(), p.read_text(encoding="utf-8"))]
    return random.Random(seed).sample(every, min(count, len(every)))


def summary(rows: Sequence[Row], reasons: Mapping[str, str]) -> Row:
    """The score by file, all together, and what survived the nearest tests with the reason that is known of it."""
    survivors = [{"place": row["place"], "kind": row["kind"], "reason": reasons.get(row["place"])} for row in rows
                 if not row["caught"]]  # fmt: skip
    said = {one["place"]: one["reason"] or "" for one in survivors}
    by_file: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row["fault"].split(":")[0]):
        own = by_file.setdefault(row["fault"].split(":")[0], dict.fromkeys(("planted", "caught", *REASONS_BEGIN), 0))
        own["planted"] += 1
        own["caught"] += row["caught"]
        for name, words in REASONS_BEGIN.items():
            own[name] += said.get(row["place"], "").startswith(words)
    total = {key: sum(own[key] for own in by_file.values()) for key in ("planted", "caught", *REASONS_BEGIN)}
    counted, held = total["planted"] - total["equivalent"], total["caught"] + total["elsewhere"]
    shares = {"share": held, "share_since": held + total["since"]}
    total |= {name: round(number / counted, 4) if counted else None for name, number in shares.items()}
    return {"count": len(rows), "total": total, "files": by_file, "survivors": survivors}


def table(by_file: Mapping[str, Row]) -> str:
    """The score by file as a table of a page."""
    shown = ("planted", "equivalent", "caught", "elsewhere", "since")
    lines = ["| file | planted | equivalent | caught | by other tests | by tests written since |", "|---" * 6 + "|"]
    lines += [f"| `{file}` | {' | '.join(str(row[key]) for key in shown)} |" for file, row in by_file.items()]
    return "\n".join(lines) + "\n"


def _head() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
