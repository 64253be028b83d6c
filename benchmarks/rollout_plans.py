"""What a cheaper rollout saves of an online step of Wan 2.1 1.3B, by plan: ``python -m benchmarks.rollout_plans``.

81 frames of 832 x 480, 50 steps, guidance 5, a prompt of four candidates, two updates on each rollout. Whom the cheaper
rollout makes the winner is in `benchmarks.cheaper_rollouts`, on the embedded model. Writes
``results/rollout_plans.json`` and the table in ``docs/performance.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import facts
from benchmarks.plans import CHECKPOINTS, MODELS, subject
from vpo_kit.planning.rehearsal import rehearse

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- table: python -m benchmarks.rollout_plans -->", "<!-- end of table -->"
RATE = 1e14
"""Floating-point operations a second at which the seconds are given; no card has been timed."""
WAYS: dict[str, dict[str, Any]] = {
    "50 steps, guidance 5": {},
    "25 steps": {"rollout_steps": 25},
    "10 steps": {"rollout_steps": 10},
    "guidance off": {"rollout_guidance": 1.0},
    "guided at levels of .5 and more": {"rollout_guidance_interval": [0.5, 1.0]},
    "candidates branch off at level .5": {"branch": 0.5},
    "four updates on each rollout": {"updates_per_rollout": 4},
}


def table(rows: dict[str, Any]) -> str:
    """The rows in Markdown."""
    lines = [
        "| rollout | network passes a step | seconds a step at 100 TFLOP/s | of the first row |",
        "|---|---|---|---|",
    ]
    for name, row in rows.items():
        lines.append(f"| {name} | {row['passes']:g} | {row['seconds']:.0f} | {row['share']:.2f} |")
    return "\n" + "\n".join(lines) + "\n"


def main() -> None:
    rows: dict[str, Any] = {}
    for name, settings in WAYS.items():
        found = rehearse(subject(MODELS["Wan 2.1 1.3B"], "online", {**CHECKPOINTS, "method": settings}))
        seconds = found.flops / RATE
        first = rows["50 steps, guidance 5"]["seconds"] if rows else seconds
        rows[name] = {"passes": found.passes, "seconds": round(seconds, 1), "share": round(seconds / first, 3)}
        print(name, rows[name], flush=True)
    facts.write("rollout_plans", {"command": "python -m benchmarks.rollout_plans", "rate": RATE, "rows": rows})
    facts.fill(PAGE, BEGIN, END, table(rows))


if __name__ == "__main__":
    main()
