"""`vpo reward check`: what rewards do on clips whose order is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpo_kit.cli.options import Set, of_reward
from vpo_kit.cli.reward import reward_app
from vpo_kit.errors import ConfigError, OutputError, VpoError

if TYPE_CHECKING:
    from rich.text import Text

    from vpo_kit.rewards.base import RewardSpec
    from vpo_kit.sprites.judges.check import JudgeFinding

    Checked = tuple[RewardSpec, Sequence[JudgeFinding]]


@reward_app.command("check")
def check_reward(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="rewards (vpo rewards), or package.module:Class", show_default="all that need no download"),
    ] = None,
    clips: Annotated[int, typer.Option(min=2, help="sprite clips to look at")] = 12,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    output: Annotated[Path | None, typer.Option(help="write the findings as JSON, too")] = None,
    set_: Set = None,
) -> None:
    """Look at rewards before training on them: direction, frozen copies, gradient, batches, time, licence."""
    import torch

    from vpo_kit.registry import REWARDS
    from vpo_kit.rewards import loading
    from vpo_kit.sprites.judges import check

    names, settings = names or [], of_reward(set_)
    if set_ and len(names) != 1:
        raise ConfigError("--set: name the one reward that it is for")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    drawn = check.FlawedClips.draw(clips, seed, device)
    checked: list[Checked] = []
    for name in names or [name for name in REWARDS.targets() if REWARDS.load(name).spec.self_contained]:
        plans = loading.plan(name, settings)
        if len(plans) > 1:
            raise ConfigError(f"reward {name!r} is a mixture: check its parts one by one")
        (reward,) = loading.load(plans, device).parts
        checked.append((reward.spec, check.check(reward, drawn)))
    _print(checked)
    if output is not None:
        _write(output, checked, clips, seed)
    wrong = [f"{spec.name}: {f.what}" for spec, findings in checked for f in findings if f.passed is False]
    if wrong:
        raise VpoError(f"not as it must be: {'; '.join(wrong)}")


def _print(checked: Sequence[Checked]) -> None:
    """Print the findings, a column for each reward."""
    from rich.table import Column, Table

    from vpo_kit.library.display import terminal

    table = Table("property", *(Column(spec.name, overflow="fold") for spec, _ in checked))
    for what in ("scale", "licence", "source"):
        table.add_row(what, *(getattr(spec, what) for spec, _ in checked))
    table.add_section()
    found = [{finding.what: finding for finding in findings} for _, findings in checked]
    for what in dict.fromkeys(what for column in found for what in column):
        table.add_row(what, *(_cell(column.get(what)) for column in found))
    terminal().print(table)


def _cell(finding: JudgeFinding | None) -> Text:
    from rich.text import Text

    if finding is None:
        return Text("-")
    word, style = {True: (" ok", "green"), False: (" FAILS", "red"), None: ("", "")}[finding.passed]
    return Text(finding.figure).append(word, style)


def _write(path: Path, checked: Sequence[Checked], num_clips: int, seed: int) -> None:
    from vpo_kit.evaluation.report import versions

    rows = {spec.name: [asdict(finding) for finding in findings] for spec, findings in checked}
    facts = {"clips": num_clips, "seed": seed, "versions": versions(), "rewards": rows}
    try:
        path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
