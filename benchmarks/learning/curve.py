"""Gain against steps: ``python -m benchmarks.learning.curve --work FOLDER NAME -- [arguments of vpo train]``.

One long run by `vpo train` that keeps its checkpoints, each then measured by the held-out judge on all held-out prompts
beside the base's videos from the same noise. It goes on where it was stopped, in the run as in the measurements, and
``results/learning/curves.json`` holds a curve for each NAME: what is there of other names stays.
``docs/images/curves.png`` shows all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file

from benchmarks import facts
from vpo_kit import config, files, models
from vpo_kit.evaluation.samples import SamplePlan, videos
from vpo_kit.evaluation.statistics import paired
from vpo_kit.folders import prompts_of
from vpo_kit.models.encoding import PromptCache
from vpo_kit.prompts import read_prompts
from vpo_kit.rewards import loading as rewards
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.video import motion

JUDGES = ("vqa", "gold")
TARGET = "learning/curves"
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "curves.png"


class Looking:
    """The embedded model with its judges, on all held-out captions, one video each, the same noise for all."""

    def __init__(self) -> None:
        self.model = models.load("sprites")
        self.judges = [rewards.load(rewards.plan(name, {}), self.model.device) for name in JUDGES]
        self.encode = PromptCache(self.model)
        path = prompts_of("sprites", "heldout")
        assert path is not None
        self.plan = SamplePlan(
            inputs=read_prompts(path), videos_per_prompt=1, settings=self.model.settings, batch_size=48, seed=0
        )

    @torch.no_grad()
    def measure(self) -> dict[str, list[float]]:
        """The judges' scores and the motion of each video, in the plan's order."""
        found: dict[str, list[float]] = {}
        for items, video in videos(self.model, self.plan, encode=self.encode):
            texts = [self.plan.prompts[i] for i, _ in items]
            for judge, name in zip(self.judges, JUDGES, strict=True):
                found.setdefault(name, []).extend(judge.fixed(video, texts, fps=self.plan.settings.fps).score.tolist())
            found.setdefault("motion", []).extend(motion(video).tolist())
        return found


def measured(folder: Path, looking: Looking) -> dict[int, dict[str, list[float]]]:
    """All checkpoints of a run, and step 0; each is written beside the run as soon as it is there."""
    run = config.build(config.read_file(folder / "config.yaml"))
    policy, found = LoraPolicy(looking.model, run.lora, run.seed), {}
    checkpoints = {int(path.name.removeprefix("step-")): path for path in (folder / "checkpoints").glob("step-*")}
    for step, path in sorted({0: None, **checkpoints}.items()):
        target = folder / "curve" / f"{step:06d}.json"
        if not target.is_file():
            if path is not None:
                policy.load_state(load_file(path / "lora.safetensors"), None)
            files.write(target, json.dumps(looking.measure()))
        found[step] = json.loads(target.read_text(encoding="utf-8"))
    return found


def curve(found: dict[int, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """For each step the change against the base, with intervals over prompts."""
    base, rows = found[0], []
    for step in sorted(found):
        after = found[step]
        changes = {key: asdict(paired(base[key], after[key], list(range(len(base[key]))))) for key in base}
        better = sum(b > a for a, b in zip(base["gold"], after["gold"], strict=True)) / len(base["gold"])
        share = sum(after["motion"]) / sum(base["motion"]) - 1
        rows.append({"step": step, "changes": changes, "better": better, "motion_share": share})
    return rows


def picture(curves: Mapping[str, Any]) -> None:
    """The held-out judge's change against the steps, with its interval, a panel for each curve."""
    figure = Figure(figsize=(10, 2.6 * -(-len(curves) // 4)), layout="constrained")
    panels = figure.subplots(-(-len(curves) // 4), 4, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, (name, one) in zip(panels, curves.items(), strict=False):
        steps = [point["step"] for point in one["points"]]
        changes = [point["changes"]["gold"] for point in one["points"]]
        panel.fill_between(steps, [c["low"] for c in changes], [c["high"] for c in changes], alpha=0.25, linewidth=0)
        panel.plot(steps, [c["difference"] for c in changes])
        panel.axhline(0, color="grey", linewidth=0.8)
        panel.set_title(name, fontsize=9)
    for panel in panels[len(curves) :]:
        panel.set_visible(False)
    figure.supxlabel("optimiser steps", fontsize=9)
    figure.supylabel("change of gold", fontsize=9)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("arguments", nargs="*", help="of vpo train, after --")
    given = parser.parse_args()
    folder = (given.work / given.name).resolve()
    arguments = [
        "train", *given.arguments, "--set", "selection.strengths=[]", "--set", "checkpoints.keep=1000",
        "--set", "evaluation.num_prompts=0",
    ]  # fmt: skip
    going_on = ["--resume"] if (folder / "config.yaml").is_file() else []
    if not (folder / "summary.json").is_file():
        subprocess.run(
            [sys.executable, "-m", "vpo_kit", *arguments, *going_on, "--output", str(folder)], check=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
    rows = curve(measured(folder, Looking()))
    path = facts.RESULTS / f"{TARGET}.json"
    old = json.loads(path.read_text(encoding="utf-8"))["curves"] if path.is_file() else {}
    facts.write(TARGET, {"curves": {**old, given.name: {"command": shlex.join(["vpo", *arguments]), "points": rows}}})
    picture(json.loads(path.read_text(encoding="utf-8"))["curves"])
    for row in rows:
        gold = row["changes"]["gold"]
        print(f"{given.name} {row['step']}: {gold['difference']:+.3f} [{gold['low']:+.3f}, {gold['high']:+.3f}]")


if __name__ == "__main__":
    main()
