"""The page of a run or of a comparison: one HTML file that opens from disk, beside its videos."""

from __future__ import annotations

import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import jinja2
import yaml

from vpo_kit import __version__
from vpo_kit.evaluation.evaluate import LOWER_IS_BETTER, Evaluation, compare
from vpo_kit.evaluation.statistics import Paired

CURVES = ("reward_mean", "implicit_accuracy", "motion", "loss", "margin", "gradient_factor")


@dataclass(frozen=True)
class Page:
    """What the page shows: the base first, then others; `folders` hold their videos, relative to the page."""

    title: str
    evaluations: Sequence[Evaluation]
    folders: Sequence[str]
    settings: Mapping[str, Any]
    licences: Mapping[str, str]
    log: Sequence[Mapping[str, float]] = ()
    health: str = ""


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    names = ("torch", "diffusers", "transformers", "peft")
    return {"vpo-kit": __version__, "python": platform.python_version(), **{name: version(name) for name in names}}


def rows(changes: Mapping[str, Paired]) -> dict[str, dict[str, float]]:
    """Paired changes as plain numbers."""
    return {name: asdict(change) for name, change in changes.items()}


def render(page: Page) -> str:
    """The whole page; prompts and all other text are escaped."""
    base, others = page.evaluations[0], page.evaluations[1:]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("vpo_kit.evaluation", "."), autoescape=True)
    return environment.get_template("report.html.j2").render(
        page=page,
        tables=[(other.name, compare(base, other)) for other in others],
        clips=_clips(page),
        curves=_curves(page.log),
        settings=yaml.safe_dump(dict(page.settings), sort_keys=False),
        versions=versions(),
        lower=LOWER_IS_BETTER,
        neutral={"motion", "speed"},
    )


def _clips(page: Page) -> list[dict[str, Any]]:
    """One entry for each prompt and seed: the videos of all models, and the biggest change first."""
    base = page.evaluations[0]
    key = next(iter(base.metrics))
    found = []
    for i, file in enumerate(base.files):
        values = [evaluation.metrics[key][i] for evaluation in page.evaluations]
        names = [evaluation.name for evaluation in page.evaluations]
        paths = [f"{folder}/{file}" for folder in page.folders]
        found.append({
            "prompt": base.prompts[base.groups[i]],
            "change": values[-1] - values[0],
            "videos": list(zip(names, paths, values, strict=True)),
        })  # fmt: skip
    return sorted(found, key=lambda clip: -abs(clip["change"]))


def _curves(log: Sequence[Mapping[str, float]]) -> str:
    """The training curves as one inline SVG, or nothing without a log."""
    shown = [key for key in CURVES if log and key in log[-1]]
    if not shown:
        return ""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.9 * ((len(shown) + 2) // 3)), layout="constrained")
    for i, key in enumerate(shown):
        axis = figure.add_subplot((len(shown) + 2) // 3, 3, i + 1)
        points = [(row["step"], row[key]) for row in log if key in row]
        axis.plot(*zip(*points, strict=True), linewidth=1.2, color="#2a6fb0")
        axis.set_title(key.replace("_", " "), fontsize=9)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
