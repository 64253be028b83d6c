"""How far rates may take the weights: ``python -m benchmarks.learning.reach``, from the trials that were made.

Each trial of the methods that learn from preferences (`sft` teaches no preference) with the sum of its rates: what it
gained at full strength, and the share of clips that it destroyed. Writes ``results/learning/reach.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks import facts
from vpo_kit import config
from vpo_kit.training.reach import LITTLE, MUCH, reach

PUBLISHED = {
    "DenseDPO": {"steps": 1000, "lora": {"rank": 128}, "optimiser": {"lr": 1e-5, "warmup_steps": 250}},
    "a public report of a run that changed nothing to be seen": {
        "steps": 8000 // 48, "lora": {"rank": 64}, "optimiser": {"lr": 5e-6, "warmup_steps": 0},
    },
}  # fmt: skip
BOUNDS = (0.0, 0.25, MUCH, float("inf"))


def trials() -> Iterator[dict[str, Any]]:
    """Every trial that is on record, with its reach."""
    for path in sorted((facts.RESULTS / "learning").glob("trials_*.json")):
        for row in json.loads(path.read_text(encoding="utf-8"))["trials"]:
            if row["values"]["method"]["name"] == "sft":
                continue
            known = {key: row["values"][key] for key in ("optimiser", "lora", "steps") if key in row["values"]}
            yield {"reach": reach(config.build(known)).reach, **row["changes"]["1.0"]}


def main() -> None:
    found, rows = list(trials()), []
    for low, high in pairwise(BOUNDS):
        inside = [one for one in found if low <= one["reach"] < high]
        gains = [one["gold"][0] for one in inside]
        rows.append({
            "from": low, "to": high if high < float("inf") else None, "trials": len(inside),
            "median gain": median(gains), "lost": sum(gain < 0 for gain in gains),
            "destroyed more than 1 clip in 10": sum(one["destroyed"] > 0.1 for one in inside),
        })  # fmt: skip
        print(rows[-1])
    smallest = min(found, key=lambda one: one["reach"])
    facts.write("learning/reach", {
        "command": "python -m benchmarks.learning.reach", "thresholds": [LITTLE, MUCH], "rows": rows,
        "published": {name: reach(config.build(values)).reach for name, values in PUBLISHED.items()},
        "smallest": {"reach": smallest["reach"], "gain": smallest["gold"]},
    })  # fmt: skip


if __name__ == "__main__":
    main()
