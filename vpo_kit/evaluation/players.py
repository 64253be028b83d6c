"""What the pages of runs and of comparisons share: videos side by side, and the numbers to sort them by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from vpo_kit.evaluation import tables
from vpo_kit.evaluation.metrics import about, verdict
from vpo_kit.evaluation.samples import Results


@dataclass(frozen=True)
class Player:
    """One model on the page: for each seed the folder of its videos, relative to the page, and their numbers."""

    name: str
    runs: dict[int, tuple[str, Results]]
    base: int
    """The place of its base among the players; a base's own is its own."""

    def at(self, seed: int) -> str:
        return self.runs[seed][0] if seed in self.runs else ""


def environment(package: str) -> jinja2.Environment:
    """Templates of `package`, which may include those of this one; everything that they are given is escaped."""
    places = [jinja2.PackageLoader(name, ".") for name in dict.fromkeys((package, __package__))]
    found = jinja2.Environment(loader=jinja2.ChoiceLoader(places), autoescape=True)
    found.globals |= {"about": about, "verdict": verdict, "tables": tables}
    return found


def shown(players: Sequence[Player], seeds: Sequence[int], metrics: Sequence[str]) -> dict[str, Any]:
    """What ``players.html.j2`` and ``players.js`` need: the clips are those of the first player."""
    base = next(iter(players[0].runs.values()))[1] if players else None
    clips = list(zip([base.prompts[group] for group in base.groups], base.files, strict=True)) if base else []
    return {"players": players, "seeds": seeds, "clips": clips, "numbers": _numbers(players, metrics)}


def _numbers(players: Sequence[Player], metrics: Sequence[str]) -> dict[str, Any]:
    """What the script needs: of each player and seed its folder, and by metric one number for each clip."""

    def run(folder: str, found: Results) -> dict[str, Any]:
        values = {key: [float(f"{value:.5g}") for value in numbers] for key, numbers in found.metrics.items()}
        return {"folder": folder, "values": values}

    models = [{"base": p.base, "runs": {seed: run(*found) for seed, found in p.runs.items()}} for p in players]
    return {"metrics": list(metrics), "models": models}
