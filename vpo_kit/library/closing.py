"""How a run ends: what is said of it, its page, its model card, and last its summary."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from vpo_kit import step_folders
from vpo_kit.config import FORMAT
from vpo_kit.errors import HealthError
from vpo_kit.evaluation import report
from vpo_kit.evaluation.samples import Results
from vpo_kit.evaluation.statistics import Paired
from vpo_kit.library import card
from vpo_kit.library.display import print_changes
from vpo_kit.library.heartbeat import clock
from vpo_kit.library.selection import Selected
from vpo_kit.models.base import VideoModel
from vpo_kit.pages.differing import differing
from vpo_kit.pages.templates import Head, command, today
from vpo_kit.training import health
from vpo_kit.training import recipe as recipes
from vpo_kit.training.recipe import Recipe
from vpo_kit.training.run_folder import RunFolder
from vpo_kit.truth import TEXT


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended: its steps, the check that stopped it, warnings by check, the chosen strength, seconds, and of
    two experts how many steps changed each.
    """

    steps: int
    stopped: HealthError | None
    warnings: Mapping[str, str]
    choice: Selected | None
    seconds: float
    updates: Mapping[str, int]

    @property
    def health(self) -> str:
        """The run's health in one line."""
        if self.stopped is not None:
            return str(self.stopped)
        return "; ".join(f"{name}, {text}" for name, text in self.warnings.items()) or "passed"


def lost_words(recipe: Recipe, changes: Mapping[str, Paired], notice: Callable[[str], None]) -> dict[str, str]:
    """The warning, by its check, where held-out videos show less of their captions after the run than before; it is
    the one look at the words of a method that makes no videos while it trains.
    """
    change = changes.get(TEXT)
    if change is None or "text_lost" in recipe.run.health.disable:
        return {}
    found = health.lost_words(change.before, change.after, change.high)
    if found is None:
        return {}
    notice(f"text_lost: on held-out prompts: {found}")
    return {"text_lost": f"on held-out prompts: {found}"}


def finish(
    recipe: Recipe,
    model: VideoModel,
    folder: RunFolder,
    ended: Ended,
    before: Results | None,
    after: Results | None,
    changes: Mapping[str, Paired],
    console: Console,
) -> None:
    """Write the page, the model card and, last, ``summary.json``: the run that has one is done."""
    run, stopped = recipe.run, ended.stopped
    verdict = {
        "ok": stopped is None,
        "check": stopped.check if stopped else None,
        "message": str(stopped or ""),
        "warnings": dict(ended.warnings),
    }
    summary: dict[str, Any] = {
        "format": FORMAT,
        "method": run.method_name,
        "reward": run.reward_name if recipe.reward else None,
        "model": run.model,
        "steps": ended.steps,
        "seconds": ended.seconds,
        "before": {},
        "after": {},
        "health": verdict,
        "selection": ended.choice.facts() if ended.choice else None,
        "versions": report.versions(),
        **({"updates": dict(ended.updates)} if ended.updates else {}),
    }
    if before and after:
        summary |= {"before": before.table(), "after": after.table(), "changes": report.rows(changes)}
        page = report.Page(
            title=f"{run.method_name} with {run.reward_name}" if recipe.reward else run.method_name,
            evaluations=[before, after],
            folders=[f"samples/{step_folders.name(step)}" for step in (0, ended.steps)],
            log=folder.log(),
            settings=run.model_dump(mode="json"),
            licences={part.spec.name: part.spec.licence for part in [*recipe.reward, *recipe.judges]},
            own=differing(run.model_dump(mode="json"), recipes.usual(recipe)),
            head=Head(date=today(), duration=clock(ended.seconds), command=command(), health=ended.health),
        )
        folder.write("report.html", report.render(page))
        print_changes(console, changes, "before", "after")
    outcome = card.RunOutcome(
        steps=ended.steps,
        changes=changes,
        health=ended.health,
        strength=ended.choice.strength if ended.choice else 1.0,
        updates=ended.updates,
    )
    folder.write("lora/README.md", card.render(recipe, model, outcome))
    folder.write("summary.json", json.dumps(summary, indent=2) + "\n")  # last: it says that the run is done
    console.print(f"LoRA: {folder.path / 'lora'}   summary: {folder.path / 'summary.json'}", soft_wrap=True)
    if before and after:
        console.print(f"page: {folder.path / 'report.html'}", soft_wrap=True)
