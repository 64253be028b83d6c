"""What the weights that ship were measured at, from their cards: ``python -m benchmarks.cards``.

Nothing is measured here. The cards beside the weights, which the commands that trained them wrote, are put among the
results as ``judges.json`` and ``models.json``, with the sizes of the weight files, and fill the tables of
docs/rewards.md, docs/sprites.md and docs/duets.md. Commit, date and versions at the top are those of the copying; those
of the weights stand inside.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from statistics import mean
from typing import Any

from safetensors import safe_open

from benchmarks import facts
from vpo_kit.folders import EMBEDDED
from vpo_kit.prompts import read_prompts

ROOT = Path(__file__).parent.parent
REWARDS = ROOT / "vpo_kit" / "rewards"
JUDGES = ("vqa", "gold", "gold2")
BEGIN, END = "<!-- {}: python -m benchmarks.cards -->", "<!-- end of {} -->"

MEASURES = {
    "parameters": "parameters",
    "pairs in the right order": "pairs",
    "windows: degraded frames scored lower": "windows",
    "static clone: a frozen copy is preferred": "static_clone_rate",
    "spread of clean clips, in units": "clean_spread",
    "20 sign-gradient steps within 2/255: rise, in units": "attack_rise",
    "share of attacked severity-2 clips that overtake their clean original": "attack_overtakes",
}
TRACKED = ("colour", "direction", "shape", "speed_class", "background", "flawed", "speed")
SETS = {
    "held_out": "held-out prompts, sampled",
    "training_clips": "training clips",
    "clean_decoded": "clean clips, decoded",
}


def made(card: Path) -> dict[str, str]:
    """Commit and day with which a card last changed, which is when its weights came in."""
    command = ["git", "log", "-1", "--format=%h %ad", "--date=short", "--", str(card)]
    commit, date = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    return {"commit": commit, "date": date}


def sizes(weights: Path) -> dict[str, int]:
    """Numbers in a safetensors file, and its bytes."""
    with safe_open(weights, framework="pt") as file:
        count = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118 - it is no mapping
    return {"parameters": count, "bytes": weights.stat().st_size}


def judge(name: str) -> dict[str, Any]:
    """A judge's card, each degradation as the mean over its severities."""
    card = json.loads((REWARDS / f"{name}.json").read_text(encoding="utf-8"))
    kinds = {
        kind: {"pairs": round(mean(found["pairs"]), 3), "windows": found["windows"]}
        for kind, found in card.pop("by_kind").items()
    }
    versions = {key: card.pop(key) for key in ("python", "torch")}
    return {**made(REWARDS / f"{name}.json"), "versions": versions, **card, "by degradation": kinds}


def model(name: str) -> dict[str, Any]:
    """An embedded model's card."""
    folder = EMBEDDED[name]
    card = folder.parent / "quality.json"
    parts = {file.parent.name: sizes(file) for file in sorted(folder.rglob("*.safetensors"))}
    return {
        **made(card),
        **json.loads(card.read_text(encoding="utf-8")),
        "held-out prompts": len(read_prompts(folder / "prompts" / "heldout.txt")),
        "weights": parts,
        "bytes of all weights": sum(part["bytes"] for part in parts.values()),
    }


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in (head, *rows)]
    return "\n".join(["", lines[0], "|---" * len(head) + "|", *lines[1:], ""])


def main() -> None:
    found = {name: judge(name) for name in JUDGES}
    models = {name: model(name) for name in EMBEDDED}
    command = {"command": "python -m benchmarks.cards"}
    facts.write("judges", {**command, "from": "vpo_kit/rewards/NAME.json", **found})
    facts.write("models", {**command, "from": "vpo_kit/NAME/quality.json", **models})

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"

    whole = [[text, *(shown(found[name][key]) for name in JUDGES)] for text, key in MEASURES.items()]
    columns = [(name, key) for name in JUDGES for key in ("pairs", "windows")]
    kinds = [
        [kind, *(shown(found[name]["by degradation"].get(kind, {}).get(key)) for name, key in columns)]
        for kind in found["gold2"]["by degradation"]  # which is measured on all
    ]
    filled = [("rewards", "judges", ["", *JUDGES], whole)]
    filled += [("rewards", "degradations", ["degradation", *map(" ".join, columns)], kinds)]
    for name, card in models.items():
        tracked = [[key.replace("_", " "), *(f"{card[part][key]:.4g}" for part in SETS)] for key in TRACKED]
        filled += [(name, "quality", ["", *SETS.values()], tracked)]
    for page, name, head, rows in filled:
        facts.fill(ROOT / "docs" / f"{page}.md", BEGIN.format(name), END.format(name), table(head, rows))


if __name__ == "__main__":
    main()
