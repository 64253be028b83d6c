"""`vpo reward check`: what rewards do on clips whose order is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table

from vpo_kit import config
from vpo_kit.errors import ConfigError, OutputError, VpoError
from vpo_kit.evaluation.report import versions
from vpo_kit.registry import REWARDS
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Reward, RewardSpec
from vpo_kit.sprites.judges import check
from vpo_kit.sprites.judges.check import JudgeFinding

Checked = tuple[RewardSpec, Sequence[JudgeFinding]]


def run(names: Sequence[str], num_clips: int, seed: int, assignments: Sequence[str], output: Path | None) -> None:
    """Print the findings, a column for each reward. Raises `VpoError` afterwards where one is not as it must be."""
    values = config.read_assignments(assignments)
    if set(values) - {"reward"}:
        raise ConfigError("--set: only reward.* can be set here")
    if values and len(names) != 1:
        raise ConfigError("--set: name the one reward that it is for")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clips = check.FlawedClips.draw(num_clips, seed, device)
    checked: list[Checked] = []
    for name in names or _self_contained():
        reward = _load(name, values.get("reward", {}), device)
        checked.append((reward.spec, check.check(reward, clips)))
    _print(checked)
    if output is not None:
        _write(output, checked, num_clips, seed)
    wrong = [f"{spec.name}: {f.what}" for spec, findings in checked for f in findings if f.passed is False]
    if wrong:
        raise VpoError(f"not as it must be: {'; '.join(wrong)}")


def _self_contained() -> list[str]:
    return [name for name in REWARDS.targets() if REWARDS.load(name).spec.self_contained]


def _load(name: str, settings: Mapping[str, Any], device: torch.device) -> Reward:
    plans = rewards.plan(name, settings)
    if len(plans) > 1:
        raise ConfigError(f"reward {name!r} is a mixture: check its parts one by one")
    (reward,) = rewards.load(plans, device).parts
    return reward


def _print(checked: Sequence[Checked]) -> None:
    table = Table("property", *(Column(spec.name, overflow="fold") for spec, _ in checked))
    for what in ("scale", "licence", "source"):
        table.add_row(what, *(getattr(spec, what) for spec, _ in checked))
    table.add_section()
    found = [{finding.what: finding for finding in findings} for _, findings in checked]
    for what in dict.fromkeys(what for column in found for what in column):
        table.add_row(what, *(_cell(column.get(what)) for column in found))
    Console().print(table)


def _cell(finding: JudgeFinding | None) -> str:
    if finding is None:
        return "-"
    return finding.figure + {True: " [green]ok[/]", False: " [red]FAILS[/]", None: ""}[finding.passed]


def _write(path: Path, checked: Sequence[Checked], num_clips: int, seed: int) -> None:
    rows = {spec.name: [asdict(finding) for finding in findings] for spec, findings in checked}
    facts = {"clips": num_clips, "seed": seed, "versions": versions(), "rewards": rows}
    try:
        path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
