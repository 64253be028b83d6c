"""Over-optimisation: reward and held-out judge over a long run of reward gradients (InstructVideo, figure 7)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import facts
from benchmarks.claims import compared, page, plots
from benchmarks.claims.design import Claim, Design, outcome
from benchmarks.claims.sets import vpo
from vpo_kit.evaluation.samples import Results

STEPS, SEEDS, PROMPTS = 200, (0, 1, 2, 3, 4), 144
METRICS = ("vqa", "gold", "flawed", "text_accuracy", "colour", "direction", "speed", "motion")
FIELDS = ("heldout_reward", "heldout_gold", "heldout_motion")


def run(work: Path, design: Design) -> None:
    """Writes ``results/claims/longrun.json`` and ``.png``."""
    logs = {}
    for seed in SEEDS:
        name = f"longrun/{seed}"
        if not (work / name / "summary.json").is_file():
            vpo(
                work, "train", "--method", "instruct", "--videos", "clips", "--reward", "vqa", "--steps", str(STEPS),
                "--seed", str(seed), "--output", name, *(["--resume"] if (work / name).exists() else []),
                "--set", "validation.share=0.07", "--set", "validation.max_items=32", "--set", "evaluation.seed=0",
                "--set", f"evaluation.num_prompts={PROMPTS}", "--set", "selection.strengths=[]",
            )  # fmt: skip
        lines = (work / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, lines) if FIELDS[0] in row]
        logs[str(seed)] = {field: [[row["step"], row[field]] for row in rows] for field in FIELDS}
    samples = [work / f"longrun/{seed}" / "samples" for seed in SEEDS]
    before, after = ([Results.load(pick(folder.glob("step-*"))) for folder in samples] for pick in (min, max))
    found = compared.changes(before, after, METRICS)
    facts.write("claims/longrun", {
        "design": design.commit, "steps": STEPS, "seeds": list(SEEDS), "changes": found, "logs": logs,
        "claims": {claim.name: _decided(claim, found[claim.metric]) for claim in design.of("longrun")},
    })  # fmt: skip
    head = ["metric", *(f"seed {seed}" for seed in SEEDS), "change"]
    rows = [[metric, *(f"{x:+.3f}" for x in one["by_seed"]), page.span(one)] for metric, one in found.items()]
    page.fill("longrun", "\n".join(page.table(head, rows)))
    series = {f"{field}, seed {seed}": log[field] for seed, log in logs.items() for field in FIELDS[:2]}
    plots.lines(series, ("optimiser steps", "held-out score"), facts.RESULTS / "claims" / "longrun.png")


def _decided(claim: Claim, change: Mapping[str, float]) -> dict[str, Any]:
    """The base minus what was trained."""
    return outcome(claim, (-change["difference"], -change["high"], -change["low"]), claim.effect)
