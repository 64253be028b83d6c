"""``python -m benchmarks.recipes``: what each ready recipe takes of its card, by a plan without weights.

Judges whose weights are not here are planned as others: hpsv2.1 as its network without weights, fastvqa as `natural`,
which ships; the second judge of the evaluation, viclip, is left out. Of `instruct` one draw is rehearsed, as each run
of frames is decoded by itself. What is in the results already is kept.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks import facts
from vpo_kit import config
from vpo_kit.planning.advice import HEADROOM
from vpo_kit.planning.estimate import Subject
from vpo_kit.planning.rehearsal import rehearse
from vpo_kit.recipes.shelf import Ready, ready
from vpo_kit.registry import METHODS
from vpo_kit.rewards import loading as rewards

RESULTS = facts.RESULTS / "recipes.json"
STAND_INS = {"fastvqa": "natural", "hpsv2.1": "benchmarks.plans:FrameReward"}


def subject(one: Ready) -> Subject:
    """A recipe as it ships, with judges that can be built here."""
    run = config.build(config.read_file(one.path))
    kind = METHODS.load(run.method_name)
    own = config.validate(kind.Config, {k: v for k, v in run.method.items() if k != "name"}, "method.")
    judge = run.reward_name if kind.needs.reward != "none" else None
    return Subject(
        run=run,
        method=kind,
        method_config=own,
        reward=rewards.plan(STAND_INS[judge], {}) if judge else [],
        judges=rewards.plan("natural", {}),
        data=next(name for name in ("videos", "pairs", "prompts") if name in config.read_file(one.path)),
        measured=run.evaluation.num_prompts,
    )


def row(one: Ready) -> dict[str, Any]:
    """The peak in bytes, its phase and parts, the arithmetic of a step, and whether the card holds it."""
    found = rehearse(subject(one), draws=1)
    return {
        "model": config.build(config.read_file(one.path)).model,
        "memory": one.gigabytes * 10**9,
        "peak": found.peak,
        "phase": found.worst,
        "bytes": {name: sum(parts.values()) for name, parts in found.phases.items()},
        "passes": found.passes,
        "flops": found.flops,
        "fits": found.peak <= HEADROOM * one.gigabytes * 10**9,
    }


def main() -> None:
    rows: dict[str, Any] = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else {}
    for one in sorted(ready(), key=lambda one: one.method == "instruct"):  # which takes longest
        if str(one) not in rows:
            rows[str(one)] = {"commit": facts.facts()["commit"], **row(one)}
            facts.write("recipes", {"command": "python -m benchmarks.recipes", "rows": rows})
            print(one, round(rows[str(one)]["peak"] / 1e9, 1), "GB in", rows[str(one)]["phase"], file=sys.stderr)


if __name__ == "__main__":
    main()
