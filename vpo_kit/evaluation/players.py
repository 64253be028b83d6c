"""What the pages of runs and of comparisons share: videos side by side, and the numbers to sort them by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from vpo_kit.evaluation import people, tables
from vpo_kit.evaluation.metrics import about, verdict
from vpo_kit.evaluation.samples import Results
from vpo_kit.pages import templates


@dataclass(frozen=True)
class Player:
    """One model on the page: for each seed the folder of its videos, relative to the page, and their numbers."""

    name: str
    runs: dict[int, tuple[str, Results]]
    base: int
    """The place of its base among the players; a base's own is its own."""


def environment(package: str) -> jinja2.Environment:
    """Templates of `package` or of this one, which may ask what a metric is and what a change means."""
    found = templates.environment(package, __package__)
    found.globals |= {"about": about, "verdict": verdict, "tables": tables, "people": people}
    return found


def shown(players: Sequence[Player], seeds: Sequence[int], metrics: Sequence[str]) -> dict[str, Any]:
    """What ``players.html.j2`` and ``players.js`` need: the clips are those of the first player, `data` holds for each
    player and seed the folder, and by metric one number for each clip.
    """

    def run(folder: str, found: Results) -> dict[str, Any]:
        values = {key: [float(f"{value:.5g}") for value in numbers] for key, numbers in found.metrics.items()}
        return {"folder": folder, "values": values}

    base = next(iter(players[0].runs.values()))[1] if players else None
    data = {
        "metrics": list(metrics),
        "clips": list(zip([base.prompts[group] for group in base.groups], base.files, strict=True)) if base else [],
        "fps": base.made_with.get("settings", {}).get("fps") if base else None,
        "models": [
            {"name": p.name, "base": p.base, "runs": {seed: run(*found) for seed, found in p.runs.items()}}
            for p in players
        ],
    }
    return {"players": players, "seeds": seeds, "metrics": metrics, "data": data}
