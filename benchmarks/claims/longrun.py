"""Over-optimisation: reward and held-out judge over a long run of reward gradients (InstructVideo, figure 7)."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import facts
from benchmarks.claims import plots
from benchmarks.claims.sets import vpo

STEPS, SEEDS = 200, (0, 1, 2)
FIELDS = ("heldout_reward", "heldout_gold", "heldout_motion")


def run(work: Path) -> None:
    """Writes ``results/claims/longrun.json`` and ``.png``."""
    logs = {}
    for seed in SEEDS:
        name = f"longrun/{seed}"
        if not (work / name / "summary.json").is_file():
            vpo(
                work, "train", "--method", "instruct", "--videos", "clips", "--reward", "vqa", "--steps", str(STEPS),
                "--seed", str(seed), "--output", name, *(["--resume"] if (work / name).exists() else []),
                "--set", "validation.share=0.07", "--set", "validation.max_items=32", "--set", "evaluation.seed=0",
            )  # fmt: skip
        lines = (work / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, lines) if FIELDS[0] in row]
        logs[str(seed)] = {field: [[row["step"], row[field]] for row in rows] for field in FIELDS}
    ends = {
        str(seed): json.loads((work / f"longrun/{seed}/summary.json").read_text(encoding="utf-8"))["changes"]
        for seed in SEEDS
    }
    facts.write("claims/longrun", {"steps": STEPS, "logs": logs, "changes": ends})
    series = {f"{field}, seed {seed}": log[field] for seed, log in logs.items() for field in FIELDS[:2]}
    plots.lines(series, ("optimiser steps", "held-out score"), facts.RESULTS / "claims" / "longrun.png")
