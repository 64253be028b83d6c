"""The pictures of the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vpo_kit.comparison import text

TITLES = {
    "gold": "held-out judge", "vqa": "reward vqa", "flawed": "flawed share (less is better)", "motion": "motion",
    "speed": "speed, pixels a frame",
    "text_accuracy": "share of right words", "warp_error": "warp error (less is better)",
}  # fmt: skip

COLOURS = {"found": "#2a7f3f", "excluded": "#b03a2a"}
FAR = 8.0


def board(found: Mapping[str, Any], metrics: Sequence[str], path: Path) -> None:
    """Each row's change against the base with its interval, a panel for each metric; single seeds as dots."""
    rows = sorted(found["rows"], key=lambda row: str(row["name"]))
    figure = Figure(figsize=(2.6 * len(metrics) + 1.6, 0.42 * len(rows) + 1.0), layout="constrained")
    for axis, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
        axis.axvline(0, color="#888888", linewidth=0.8)
        for place, row in enumerate(rows):
            if metric not in row["changes"]:
                continue
            change = row["changes"][metric]
            axis.plot([change["low"], change["high"]], [place, place], color="#2a6fb0", linewidth=1.6)
            axis.plot([change["difference"]], [place], "o", color="#2a6fb0", markersize=5)
            axis.plot(list(change["by_seed"].values()), [place + 0.22] * len(change["by_seed"]), ".", color="#999999")
        axis.set_title(TITLES.get(metric, metric), fontsize=9)
        axis.set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=8)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.tick_params(axis="x", labelsize=8)
        axis.locator_params(axis="x", nbins=4)
        axis.grid(axis="x", linewidth=0.4, color="#dddddd")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def claims(decided: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Each claim's interval in units of the effect that would matter, with its verdict; beyond `FAR` it is cut off."""
    figure = Figure(figsize=(7.6, 0.3 * len(decided) + 0.9), layout="constrained")
    axis = figure.add_subplot()
    for x, style in ((0, "-"), (-1, ":"), (1, ":")):
        axis.axvline(x, color="#888888", linewidth=0.8, linestyle=style)
    for place, claim in enumerate(decided):
        low, middle, high = (max(-FAR, min(FAR, claim[end] / claim["effect"])) for end in ("low", "difference", "high"))
        colour = COLOURS.get(claim["verdict"].partition(",")[0], "#999999")
        axis.plot([low, high], [place, place], color=colour, linewidth=1.8)
        axis.plot([middle], [place], "o", color=colour, markersize=5)
    axis.set_yticks(range(len(decided)), [f"{claim['name']}: {claim['verdict']}" for claim in decided], fontsize=8)
    axis.set_ylim(len(decided) - 0.4, -0.6)
    axis.set_xlim(-FAR, FAR)
    axis.set_xlabel("difference, in effects that would matter", fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _name(row: Mapping[str, Any]) -> str:
    label = text.label(row["name"])
    return f"{label}\n{row['passes']:,.0f} passes" if row["passes"] else label


def lines(series: Mapping[str, Sequence[tuple[float, float]]], axes: tuple[str, str], path: Path) -> None:
    """One line for each name, in the order given; `axes` are the labels of x and y."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.add_subplot()
    for name, points in series.items():
        axis.plot(*zip(*points, strict=True), marker=".", label=name)
    axis.set_xlabel(axes[0])
    axis.set_ylabel(axes[1])
    axis.legend(fontsize=8)
    axis.grid(linewidth=0.4, color="#dddddd")
    figure.savefig(path, dpi=110, metadata={"Software": None})
