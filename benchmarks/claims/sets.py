"""The data of all claims, made once in the work folder: clips, pair sets, and pair sets with worse labels.

Real clips are the world's training clips; labels come from the reward `vqa`, segment by segment.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vpo_kit.files import link
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.segments import vote
from vpo_kit.pairing.store import PairSet

CLIPS = 480
ROOT = Path(__file__).parents[2]
Change = Callable[[Sequence[Pair]], list[Pair]]


def vpo(work: Path, *arguments: str) -> None:
    """A command of the toolkit, in a process of its own, in the work folder, so that no result holds its path."""
    # this folder, because a reward of the claims is a class of it
    subprocess.run(
        [sys.executable, "-m", "vpo_kit", *arguments], check=True, cwd=work, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def make(work: Path) -> None:
    """Everything that is not there yet: of the sprites all sets, of the duets the first two."""
    _make_two(work, "sprites", "")
    _make_two(work, "duets", "duets-")
    vpo(work, "pair", "--strategy", "real", "--videos", "clips", "--output", "real")
    guided = store.read(work / "guided")
    for name, judge in OTHER_JUDGES.items():
        target = work / f"guided-{name}"
        _derive(guided, guided.pairs, target)
        if store.read(target).facts["labels"]["labeller"] != f"reward:{judge}":
            vpo(work, "label", target.name, "--with", f"reward:{judge}")
    for name, change in CHANGES.items():
        _derive(guided, change(guided.pairs), work / name)


def _make_two(work: Path, model: str, prefix: str) -> None:
    """Clips of a model's world, guided pairs of them, and independent pairs of their captions."""
    clips, prompts = f"{prefix}clips", f"{prefix}prompts.txt"
    if not (work / clips / "metadata.jsonl").is_file():
        vpo(work, "clips", "--model", model, "--output", clips, "--count", str(CLIPS))
    if not (work / prompts).is_file():
        lines = (work / clips / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        captions = dict.fromkeys(json.loads(line)["text"] for line in lines)
        (work / prompts).write_text("\n".join(captions) + "\n", encoding="utf-8")
    for strategy, source in (("guided", ("--videos", clips)), ("independent", ("--prompts", prompts))):
        vpo(
            work, "pair", "--model", model, "--strategy", strategy, *source, "--label", "reward:vqa",
            "--output", f"{prefix}{strategy}",
        )  # fmt: skip


def flipped(share: float) -> Change:
    """Every label that is no tie turned round with probability `share`, the draw fixed by the pair's place."""

    def change(pairs: Sequence[Pair]) -> list[Pair]:
        draw = random.Random(0)
        found = []
        for pair in pairs:
            signs = [-1 if draw.random() < share else 1 for _ in pair.segments]
            labels = [sign * label for sign, label in zip(signs, pair.labels or (), strict=True)]
            found.append(pair.model_copy(update={"labels": labels, "label": vote(labels)}))
        return found

    return change


def every(step: int) -> Change:
    """One pair of `step`."""
    return lambda pairs: list(pairs[::step])


def in_both_orders(wrong: float) -> Change:
    """As a VLM labels: each segment is asked about in both orders, an answer is wrong with probability `wrong`, and
    where the two disagree it is a tie.
    """

    def change(pairs: Sequence[Pair]) -> list[Pair]:
        draw = random.Random(0)
        found = []
        for pair in pairs:
            labels = []
            for label in pair.labels or ():
                first, second = (-label if draw.random() < wrong else label for _ in range(2))
                labels.append(first if first == second else 0)
            found.append(pair.model_copy(update={"labels": labels, "label": vote(labels)}))
        return found

    return change


def _voted(pairs: Sequence[Pair]) -> list[Pair]:
    """Every segment takes the label of the whole clip."""
    return [pair.model_copy(update={"labels": [pair.label or 0] * len(pair.segments)}) for pair in pairs]


OTHER_JUDGES = {
    "technical": "technical", "mixture": "vqa:0.5+technical:0.5", "image": "benchmarks.claims.image:Frames",
}  # fmt: skip
"""Judges whose labels the guided pairs get again, by the set's name."""
CHANGES: dict[str, Change] = {
    "flip40": flipped(0.4), "half": every(2), "third": every(3), "voted": _voted,
    "vlm": in_both_orders(0.25),
}  # fmt: skip


def _derive(guided: PairSet, pairs: Sequence[Pair], target: Path) -> None:
    """A set of the same files with other labels."""
    if (target / "metadata.jsonl").is_file():
        return
    for pair in pairs:
        for name in pair.files:
            link(guided.path / name, target / name)
    store.write(target, {**guided.facts, "pairs": len(pairs)}, pairs)
