"""`vpo train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vpo_kit import defaults
from vpo_kit.config import dump
from vpo_kit.errors import ConfigError
from vpo_kit.library import checks
from vpo_kit.library import train as trainings
from vpo_kit.training import initial, recipe
from vpo_kit.training.recipe import Recipe


def run(
    options: dict[str, Any],
    file: Path | None,
    assignments: Sequence[str],
    *,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    plan: bool = False,
) -> None:
    """Train as the recipe says. Raises `VpoError` for whatever a user can mend."""
    file = trainings.file_of(file, options.get("output"), resume=resume, overwrite=overwrite)
    checked = initial.resolve(recipe.read(options, file, assignments))
    if plan and not dry_run:
        raise ConfigError("--plan goes with --dry-run; vpo plan is the same without data")
    if dry_run:
        _show(checked, plan=plan)
    else:
        trainings.run(checked, resume=resume, overwrite=overwrite)


def _show(checked: Recipe, *, plan: bool) -> None:
    print(dump(checked.run), end="")
    for line in defaults.provenance(checked.run, checked.given):
        print(f"# {line}")
    checks.check(checked)
    for line in checks.unchecked(checked):
        print(f"# not checked: {line}")
    if plan:
        from vpo_kit.library import plan as plans  # torch's private parts that it needs are no training's business

        plans.show(checked)
