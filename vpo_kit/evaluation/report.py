"""The page of a run or of a comparison: one HTML file that opens from disk, beside its videos."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import yaml

from vpo_kit import __version__
from vpo_kit.evaluation import players, plots, tables
from vpo_kit.evaluation.metrics import about, ordered, verdict
from vpo_kit.evaluation.players import Player
from vpo_kit.evaluation.samples import Results, compare
from vpo_kit.evaluation.statistics import Paired

NON_COMMERCIAL = re.compile(r"non.?commercial|\bNC\b", re.IGNORECASE)


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run that was evaluated: its ``config.yaml`` as text and its ``metrics.jsonl``."""

    settings: str = ""
    log: Sequence[Mapping[str, float]] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the page shows: the base first, then others; `folders` hold their videos, relative to the page."""

    title: str
    evaluations: Sequence[Results]
    folders: Sequence[str]
    settings: Mapping[str, Any]
    licences: Mapping[str, str]
    log: Sequence[Mapping[str, float]] = ()
    health: str = ""
    changes: Mapping[str, Mapping[str, Paired]] | None = None
    """Each model's changes against the base; by default those of its metrics."""
    live: bool = False
    """Whether the run goes on: then the page loads itself again."""
    runs: Mapping[str, RunFacts] = field(default_factory=dict)
    """Facts about the evaluated runs, by the model's name."""


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    names = ("torch", "diffusers", "transformers", "peft")
    return {"vpo-kit": __version__, "python": platform.python_version(), **{name: version(name) for name in names}}


def rows(changes: Mapping[str, Paired]) -> dict[str, dict[str, Any]]:
    """Paired changes as plain numbers, each with its metric's direction and unit and with the verdict."""
    return {
        name: asdict(change)
        | {"direction": about(name).direction, "unit": about(name).unit, "verdict": verdict(name, change)}
        for name, change in changes.items()
    }


def render(page: Page) -> str:
    """The whole page; prompts and all other text are escaped."""
    base, others = page.evaluations[0], page.evaluations[1:]
    changes = page.changes or {other.name: compare(base, other) for other in others}
    metrics = ordered(dict.fromkeys(key for evaluation in page.evaluations for key in evaluation.metrics))
    models = [
        Player(one.name, {0: (folder, one)}, base=0) for one, folder in zip(page.evaluations, page.folders, strict=True)
    ]
    template = players.environment("vpo_kit.evaluation").get_template("report.html.j2")
    return template.render(
        page=page,
        compared=[(name, found, plots.forest(found)) for name, found in changes.items()],
        caption=tables.caption(changes) if changes else "",
        **players.shown(models, [0], metrics),
        training=[(title, svg) for title, svg in _training(page) if svg],
        settings=yaml.safe_dump(dict(page.settings), sort_keys=False, allow_unicode=True),
        versions=versions(),
        licences=[(name, text, bool(NON_COMMERCIAL.search(text))) for name, text in page.licences.items()],
    )


def _training(page: Page) -> list[tuple[str, str]]:
    """Title and plot of what the runs logged."""
    found = [("Training", plots.curves(page.log)), ("Held out, during training", plots.over_time(page.log))]
    for name, run in page.runs.items():
        found.append((f"{name}: training", plots.curves(run.log)))
        found.append((f"{name}: held out, during training", plots.over_time(run.log)))
    return found
