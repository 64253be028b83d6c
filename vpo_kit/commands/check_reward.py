"""`vpo reward check`: what a reward does on clips whose order is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Column, Table

from vpo_kit import config
from vpo_kit.errors import ConfigError, VpoError
from vpo_kit.rewards import check
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import RewardSpec

VERDICTS = {True: "ok", False: "FAILS", None: ""}


def run(name: str, num_clips: int, seed: int, assignments: Sequence[str]) -> None:
    """Print the findings. Raises `VpoError` afterwards where one is not as it must be."""
    values = config.read_assignments(assignments)
    if set(values) - {"reward"}:
        raise ConfigError("--set: only reward.* can be set here")
    plans = rewards.plan(name, values.get("reward", {}))
    if len(plans) > 1:
        raise ConfigError(f"reward {name!r} is a mixture: check its parts one by one")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    (reward,) = rewards.load(plans, device).parts
    findings = check.check(reward, check.Clips.draw(num_clips, seed, device))
    _print(reward.spec, findings)
    if wrong := [finding.what for finding in findings if finding.passed is False]:
        raise VpoError(f"reward {reward.spec.name!r} fails: {'; '.join(wrong)}")


def _print(spec: RewardSpec, findings: Sequence[check.Finding]) -> None:
    table = Table("property", Column("found", overflow="fold"), "", title=f"reward {spec.name}", title_justify="left")
    facts = {"scale": spec.scale, "licence": spec.licence, "weights": spec.source}
    for what, text in facts.items():
        table.add_row(what, text, "")
    for finding in findings:
        table.add_row(finding.what, finding.figure, VERDICTS[finding.passed])
    Console().print(table)
