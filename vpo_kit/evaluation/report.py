"""The page of a run or of a comparison: one HTML file that opens from disk, beside its videos."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

import yaml
from markupsafe import Markup

from vpo_kit import __version__
from vpo_kit.evaluation import players, plots, tables
from vpo_kit.evaluation.metrics import about, ordered, verdict
from vpo_kit.evaluation.players import Player
from vpo_kit.evaluation.samples import Results, compare
from vpo_kit.evaluation.sentence import sentence
from vpo_kit.evaluation.statistics import Paired
from vpo_kit.pages.differing import Differing
from vpo_kit.pages.templates import Head

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
    head: Head = field(default_factory=Head)
    """What stands on top; its sentence is by default what the changes say."""
    own: Differing = ()
    """The settings that differ from their defaults: they are shown, all others are folded away."""
    changes: Mapping[str, Mapping[str, Paired]] | None = None
    """Each model's changes against the base; by default those of its metrics."""
    people: Sequence[Sequence[str]] = ()
    """What people said in a study (`people.cells`)."""
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
    said = [sentence(base.name, name, found) for name, found in changes.items()]
    template = players.environment("vpo_kit.evaluation").get_template("report.html.j2")
    return template.render(
        page=page,
        title=page.title,
        head=replace(page.head, said=page.head.said or (said[0] if len(said) == 1 else "")),
        said=said,
        compared=[(name, found, plots.forest(found)) for name, found in changes.items()],
        caption=tables.caption(changes) if changes else "",
        **players.shown(models, [0], metrics),
        training=_training(page),
        settings=_folded(page),
        versions=versions(),
        licences=[(name, text, bool(NON_COMMERCIAL.search(text))) for name, text in page.licences.items()],
    )


def _training(page: Page) -> list[tuple[str, Markup]]:
    """Title and pictures of what the runs logged."""
    logs = {"this run": page.log} if page.log else {name: run.log for name, run in page.runs.items() if run.log}
    found = (("Training", plots.curves(logs)), ("Held out, during training", plots.over_time(logs)))
    return [(title, plot) for title, plot in found if plot]


def _folded(page: Page) -> list[tuple[str, str]]:
    """Titles and texts of all settings: the page's own, then those of the runs that were evaluated."""
    own = yaml.safe_dump(dict(page.settings), sort_keys=False, allow_unicode=True)
    return [("all settings", own), *((f"{name}: the run's settings", run.settings) for name, run in page.runs.items())]
