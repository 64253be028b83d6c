"""The data of the claims, made once in the work folder: clips, pair sets, and pair sets with worse labels.

Real clips are the world's training clips; labels come from the reward `vqa`, segment by segment.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vpo_kit import files
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.segments import vote

CLIPS = 480
ROOT = Path(__file__).parents[2]
Change = Callable[[Sequence[Pair]], list[Pair]]


def vpo(work: Path, *arguments: str) -> None:
    """A command of the toolkit, in a process of its own, in the work folder, so that no result holds its path."""
    # this folder, because a reward of the claims is a class of it
    subprocess.run(
        [sys.executable, "-m", "vpo_kit", *arguments], check=True, cwd=work, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def named(arguments: Sequence[str]) -> list[str]:
    """The sets that the arguments of a `vpo compare` name."""
    words = {part for word in arguments for part in re.split("[,=]", word)}
    return [name for name in EVERY if name in words]


def make(work: Path, names: Sequence[str], clips: int) -> None:
    """What is not there yet of the sets `names` and of what they are made of, from so many clips of a world; one
    process at a time. Raises `SystemExit` where there are clips, but not so many.
    """
    with files.held(work, lambda: print("another process makes the sets: waiting for it", flush=True)):
        _make(work, names, clips)


def _make(work: Path, names: Sequence[str], clips: int) -> None:
    for name in names:
        world, strategy = "duets" if name.startswith("duets-") else "sprites", name.removeprefix("duets-")
        if name in OTHER_JUDGES or name in CHANGES:
            _make(work, ["guided"], clips)
            _derived(work, name)
        elif strategy == "clips":
            _clips(work, name, world, clips)
        else:
            source = name.removesuffix(strategy) + "clips"
            _make(work, [source], clips)
            _pairs(work, name, strategy, source, world)


def _clips(work: Path, name: str, world: str, count: int) -> None:
    """Clips of a world, all or none."""
    told = work / name / "metadata.jsonl"
    if not told.is_file():
        with files.beside(work / name) as part:
            vpo(work, "clips", "--model", world, "--output", part.name, "--count", str(count))
    elif (found := len(told.read_text(encoding="utf-8").splitlines())) != count:
        raise SystemExit(f"{told.parent} has {found} clips, not {count}: remove it, and the pairs that were made of it")


def _pairs(work: Path, name: str, strategy: str, source: str, world: str) -> None:
    """Pairs of clips, or of samples of their captions, labelled by `vqa` where they need labels; goes on."""
    if (work / name / "metadata.jsonl").is_file() and (strategy == "real" or "labels" in store.read(work / name).facts):
        return
    data, label = ("--videos", source), () if strategy == "real" else ("--label", "reward:vqa")
    if strategy == "independent":
        lines = (work / source / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        captions = dict.fromkeys(json.loads(line)["text"] for line in lines)
        data = ("--prompts", source.removesuffix("clips") + "prompts.txt")
        (work / data[1]).write_text("\n".join(captions) + "\n", encoding="utf-8")
    vpo(work, "pair", "--model", world, "--strategy", strategy, *data, *label, "--output", name)


def _derived(work: Path, name: str) -> None:
    """The guided pairs with other labels."""
    target = work / name
    if not (target / "metadata.jsonl").is_file():
        guided = store.read(work / "guided")
        pairs = CHANGES.get(name, list)(guided.pairs)
        for pair in pairs:
            for file in pair.files:
                files.link(guided.path / file, target / file)
        store.write(target, {**guided.facts, "pairs": len(pairs)}, pairs)
    judge = OTHER_JUDGES.get(name)
    # by the pairs: the facts are written first, and a kill may come between
    if judge and {pair.labeller for pair in store.read(target).pairs} != {f"reward:{judge}"}:
        vpo(work, "label", name, "--with", f"reward:{judge}")


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
    "guided-technical": "technical", "guided-mixture": "vqa:0.5+technical:0.5",
    "guided-image": "benchmarks.claims.image:Frames",
}  # fmt: skip
"""Judges whose labels the guided pairs get again, by the set's name."""
CHANGES: dict[str, Change] = {
    "flip40": flipped(0.4), "half": every(2), "third": every(3), "voted": _voted,
    "vlm": in_both_orders(0.25),
}  # fmt: skip
EVERY = (
    "clips", "guided", "independent", "real", *OTHER_JUDGES, *CHANGES,
    "duets-clips", "duets-guided", "duets-independent",
)  # fmt: skip
"""The sets that there are, each after what it is made of."""
