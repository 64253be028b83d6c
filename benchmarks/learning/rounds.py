"""What a second round adds: ``python -m benchmarks.learning.rounds --work FOLDER [--seeds 1] [--smoke]``.

Round one: pairs of the base on a part of the training captions, labelled by `vqa`, and DPO on them. Round two: pairs of
the trained model on the same captions, labelled by the same judge, and DPO from the first round's LoRA. Beside them
`again`, which goes on from the first round on the first round's own pairs: the same steps without fresh videos.

All are measured on the same held-out captions and noises, so that differences are paired. A run that a health check has
stopped is measured as it was left, and named with the check's words; no round begins from one. Everything is made by
`vpo` in processes of its own, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks import facts
from benchmarks.claims.compared import changes
from benchmarks.claims.sets import vpo
from benchmarks.learning.board import cell, shares
from vpo_kit import files
from vpo_kit.evaluation.samples import Results
from vpo_kit.folders import prompts_of
from vpo_kit.prompts import read_prompts
from vpo_kit.training.recipe import spread

NAMES = {"run-1": "round 1", "again": "round 1, its pairs again", "run-2": "round 2"}
CONTRASTS = (("run-1", "base"), ("again", "base"), ("run-2", "base"), ("run-2", "run-1"), ("run-2", "again"))
METRICS = ("gold", "vqa", "flawed", "motion")
JUDGE = "gold"


@dataclass(frozen=True)
class Extent:
    """How much is made and measured; `settings` are those of a training run, beside the model's recipe."""

    prompts: int = 160
    heldout: int = 144
    settings: tuple[str, ...] = ()


FULL = Extent(settings=("steps=60", "optimiser.lr=1e-3"))
"""At this rate, which the recipe has since left, 150 steps are too many for so few pairs: checks stop them at half."""
SMOKE = Extent(3, 2, ("steps=2", "batch_size=2", "selection.strengths=[1.0]", "selection.num_prompts=1"))


def seed(work: Path, number: int, extent: Extent) -> None:
    """Both rounds of one seed, in a folder of their own."""
    work.mkdir(parents=True, exist_ok=True)
    source = prompts_of("sprites", "train")
    assert source is not None
    files.write(work / "prompts.txt", "\n".join(spread(read_prompts(source), extent.prompts)) + "\n")
    _pairs(work, "pairs-1", 2 * number)
    if message := _train(work, "run-1", "pairs-1", number, extent, ()):
        raise SystemExit(f"{work / 'run-1'} was stopped, and no round is to begin from what was left: {message}")
    _pairs(work, "pairs-2", 2 * number + 1, "--lora", "run-1")
    _train(work, "run-2", "pairs-2", number, extent, ("--init-lora", "run-1"))
    _train(work, "again", "pairs-1", number, extent, ("--init-lora", "run-1"))
    if not (work / "eval" / "results.json").is_file():
        judges = [part for name in ("vqa", JUDGE) for part in ("--reward", name)]
        vpo(work, "eval", *NAMES, "--output", "eval", "--num-prompts", str(extent.heldout), "--best-of", "0", *judges)


def _pairs(work: Path, name: str, number: int, *lora: str) -> None:
    vpo(work, "pair", "--prompts", "prompts.txt", "--seed", str(number), "--set", "independent.num_candidates=4",
        "--output", name, *lora)  # fmt: skip


def _train(work: Path, name: str, pairs: str, number: int, extent: Extent, start: Sequence[str]) -> str:
    """Train, where it has not been done; returns the words of the health check that has stopped the run, if any."""
    if not (work / name / "summary.json").is_file():
        going_on = ["--resume"] if (work / name / "config.yaml").is_file() else []
        own = ["evaluation.num_prompts=0", "validation.share=0", *extent.settings]
        changed = [part for one in own for part in ("--set", one)]
        try:
            vpo(work, "train", "--method", "dpo", "--pairs", pairs, "--seed", str(number), *start, *changed, "--output",
                name, *going_on)  # fmt: skip
        except subprocess.CalledProcessError:
            if not (work / name / "summary.json").is_file():  # no check has stopped it: it has failed
                raise
    return stopped(work / name)


def stopped(run: Path) -> str:
    """The words of the health check that has stopped a run; none where it ended."""
    message: str = json.loads((run / "summary.json").read_text(encoding="utf-8"))["health"]["message"]
    return message


def compared(work: Path, seeds: int) -> list[dict[str, Any]]:
    """Each contrast in each metric, over prompts and seeds."""

    def of(name: str) -> list[Results]:
        return [Results.load(work / str(number) / "eval" / "videos" / name) for number in range(seeds)]

    return [{"one": one, "other": other, **changes(of(other), of(one), METRICS)} for one, other in CONTRASTS]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """As Markdown: a row for each contrast."""
    lines = ["| | " + " | ".join(METRICS) + " |", "|---" * (len(METRICS) + 1) + "|"]
    for row in rows:
        cells = [cell(key, row[key]) for key in METRICS]
        lines.append(
            f"| {NAMES[row['one']]} against {NAMES.get(row['other'], row['other'])} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def picture(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Gain by the held-out judge over the base, and motion beside it."""
    shown = [row for row in rows if row["other"] == "base"]
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    for axis, key in zip(figure.subplots(1, 2, sharey=True), (JUDGE, "motion"), strict=True):
        axis.axvline(0, color="#888888", linewidth=0.8)
        for place, row in enumerate(shown):
            one = row[key]
            change, low, high = shares(one) if key == "motion" else (one["difference"], one["low"], one["high"])
            axis.plot([low, high], [place, place], color="#2a6fb0", linewidth=1.6)
            axis.plot([change], [place], "o", color="#2a6fb0", markersize=5)
        axis.set_title({JUDGE: "held-out judge", "motion": "motion"}[key] + ", against the base", fontsize=9)
        axis.set_yticks(range(len(shown)), [NAMES[row["one"]] for row in shown], fontsize=8)
        axis.set_ylim(len(shown) - 0.5, -0.5)
        if key == "motion":
            axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="two steps on three prompts, written into the work folder")
    given = parser.parse_args()
    extent = SMOKE if given.smoke else FULL
    for number in range(given.seeds):
        seed(given.work / str(number), number, extent)
    rows = compared(given.work, given.seeds)
    target = given.work if given.smoke else facts.RESULTS / "learning"
    stops = [
        {"run": name, "seed": number, "message": message}
        for number in range(given.seeds) for name in NAMES if (message := stopped(given.work / str(number) / name))
    ]  # fmt: skip
    found = {"seeds": given.seeds, "prompts": extent.prompts, "heldout": extent.heldout, "contrasts": rows}
    files.write(target / "rounds.json", json.dumps({**facts.facts(), **found, "stopped": stops}, indent=2) + "\n")
    told = table(rows) + "".join(
        f"\nStopped by a health check, seed {one['seed']}: {NAMES[one['run']]}, {one['message']}\n" for one in stops
    )
    files.write(target / "rounds.md", told)
    picture(rows, target / "rounds.png")
    print(told)


if __name__ == "__main__":
    main()
