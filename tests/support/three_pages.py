"""A report, a board, the pages of a pair set and of judges, over three small clips, made without a model."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import torch

from tests.support.browser import FRAME_S
from vpo_kit.comparison import board, board_page
from vpo_kit.comparison.board import Board
from vpo_kit.comparison.outcome import Machine, Outcome
from vpo_kit.evaluation import report
from vpo_kit.evaluation.report import Page, RunFacts
from vpo_kit.evaluation.samples import Results
from vpo_kit.judged.disagreement import DisagreementSection, page
from vpo_kit.judged.sets import JudgedClip, JudgedPair, JudgedSet
from vpo_kit.pages.templates import Head
from vpo_kit.pairing import page as pair_page
from vpo_kit.pairing.inspect import summarise
from vpo_kit.pairing.store import PairSet
from vpo_kit.testing.pairs import pair_row
from vpo_kit.video import write_video

PROMPTS = [
    f"prompt number {i} about {'a circle' if i % 2 else 'an averylongwordthatdoesnotbreakbyitself'}" for i in range(14)
]
METRICS = ("vqa", "gold", "motion", "warp_error", "flicker", "sharpness")
NAMES = ("dense method.beta=5000 method.reference_update=ema", "dpo", "online", "sft", "vader method.steps=2")
PAIRS = 10_000
JUDGES = (("loud", 1.0), ("fair", -1.0))
"""Judges, and what the second clip of a pair has more by them: people choose the first."""
HEAD = Head(date="2026-01-31 12:00", duration="1:02:03", command="vpo train --method online --output runs/first")


def results(name: str, shift: float, count: int = len(PROMPTS)) -> Results:
    """Numbers drawn by the prompt, moved by `shift`; the motion falls with it."""
    draw = random.Random(1)
    metrics = {
        key: [draw.gauss(0, 1) + (-shift if key == "motion" else shift) for _ in range(count)] for key in METRICS
    }
    return Results(
        name=name,
        prompts=PROMPTS[:count],
        groups=list(range(count)),
        files=[f"{i:03d}-0.mp4" for i in range(count)],
        metrics=metrics,
        made_with={"settings": {"fps": 8}},
    )


def build(root: Path) -> dict[str, Path]:
    """The pages by what they are of, in the folder `root`."""
    for i in range(3):
        video = torch.rand(1, 3, 1, 1).expand(20, 3, 32, 32).clone()
        for frame in range(20):
            video[frame, :, 10 + i : 20 + i, frame : frame + 8] = 1
        write_video(root / f"{i}.mp4", video, fps=1 / FRAME_S)
    places = {name: root / f"{name}.html" for name in ("report", "board", "pairs", "judges")}
    places["report"].write_text(_report(root))
    places["board"].write_text(_board(root))
    places["pairs"].write_text(_pairs(root, places["pairs"]))
    places["judges"].write_text(_judges(root, places["judges"]))
    return places


def _filled(root: Path, folder: str, found: Results, kind: int) -> str:
    (root / folder).mkdir(parents=True)
    for file in found.files:
        shutil.copy(root / f"{kind}.mp4", root / folder / file)
    return folder


def _report(root: Path) -> str:
    before, after = results("base", 0.0), results("moved", 0.4)
    logs = [[{"step": float(i), "loss": 1 / i + run, "reward_mean": i / 9} for i in range(1, 40)] for run in range(2)]
    shown = Page(
        title="wan against a-name-of-a-run-that-is-rather-long-20260131-120000",
        evaluations=[before, after],
        folders=[_filled(root, "base", before, 0), _filled(root, "moved", after, 1)],
        settings={"steps": 4, "lora": {"rank": 4}},
        licences={"vqa": "Apache-2.0", "other": "CC-BY-NC-4.0"},
        head=HEAD,
        own=[("lora.rank", "4", "16")],
        runs={f"run-{i}": RunFacts("seed: 1", log) for i, log in enumerate(logs)},
    )
    return report.render(shown)


def _board(root: Path) -> str:
    before = results("before", 0.0, 3)
    lines = []
    for i, name in enumerate(NAMES):
        after, folder = results("after", 0.3 * i - 0.3, 3), root / "runs" / f"x-{i}"
        _filled(root, f"runs/x-{i}/samples/step-000000", before, 0)
        _filled(root, f"runs/x-{i}/samples/step-000009", after, 1 + i % 2)
        outcome = Outcome(
            seed=0, folder=folder, status="done", reason="", steps=9, passes=1000 * (7 * i % 5),
            machine=Machine(9.0, True, 99), before=before, after=after, samples="samples/step-000009",
        )  # fmt: skip
        lines.append(board.line(name, "dense", 1200, {"steps": 9}, [outcome]))
    facts = {"title": "wan: dense, dpo, online, sft, vader", "seeds": [0], "versions": {"torch": "2"}}
    found = Board(board.ranked(lines, "gold"), "gold", facts, {"gold": "CC-BY-NC-4.0"})
    return board_page.render(found, root / "board.html", HEAD)


def _pairs(root: Path, place: Path) -> str:
    first, labels = pair_row(), [[1, -1, 0, 1], [0, 0, 0, 0], [-1, -1, -1, 1]]
    pairs = [
        first.model_copy(
            update={
                "id": f"{i:06d}", "prompt": PROMPTS[i % 14], "first_file_name": "0.mp4", "second_file_name": "1.mp4",
                "labels": labels[i % 3], "label": labels[i % 3][0], "frames": 20,
                "segments": [(0, 5), (5, 10), (10, 15), (15, 20)],
            }
        )
        for i in range(PAIRS)
    ]  # fmt: skip
    return pair_page.render(PairSet(root, {"model": "wan"}, pairs, []), summarise(pairs), place, head=HEAD)


def _judges(root: Path, place: Path) -> str:
    clips = [JudgedClip(path=root / f"{i % 3}.mp4", prompt=PROMPTS[i // 2]) for i in range(28)]
    pairs = [JudgedPair(first=2 * i, second=2 * i + 1, verdicts={"quality": 1}, row=i + 1) for i in range(14)]
    found = JudgedSet(name="set", clips=clips, pairs=pairs)
    wrong = [
        DisagreementSection(found, judge, "quality", [i % 2 * scale for i in range(28)]) for judge, scale in JUDGES
    ]
    return page(wrong, place)
