"""The pictures of a report: SVG to put into a page, the same bytes for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from vpo_kit.evaluation.metrics import about, verdict
from vpo_kit.evaluation.statistics import Paired

CURVES = ("reward_mean", "implicit_accuracy", "motion", "loss", "margin", "gradient_factor")
REWARD, GOLD = "heldout_reward", "heldout_gold"
COLOURS = {"better": "#1a7f37", "worse": "#c0392b", "changed": "#2a6fb0", "unclear": "#777777"}
SHAPES = {"better": "^", "worse": "v", "changed": "D", "unclear": "o"}
"""A verdict is told by shape too: not everyone sees the colours apart."""

Log = Sequence[Mapping[str, float]]
"""The rows of a run's ``metrics.jsonl``."""


def forest(changes: Mapping[str, Paired]) -> str:
    """Every change with its interval, in standard deviations over videos, so that all metrics share one axis; right is
    better, and where nothing is better it is more. Nothing for metrics that have no spread.
    """
    shown = {name: change for name, change in changes.items() if change.spread > 0}
    if not shown:
        return ""
    notes = {"lower": " (less is right)", "higher": "", "neutral": " (no direction)"}
    labels = [name.replace("_", " ") + notes[about(name).direction] for name in shown]
    figure = _figure(8, 0.9 + 0.24 * len(shown), left=0.25 + 0.065 * max(map(len, labels)), bottom=0.45)
    axis = figure.add_subplot()
    axis.axvline(0, color="#888888", linewidth=0.8)
    for place, (name, change) in enumerate(shown.items()):
        sign = -1 if about(name).direction == "lower" else 1
        low, middle, high = (sign * value / change.spread for value in (change.low, change.difference, change.high))
        said = verdict(name, change)
        axis.plot([low, high], [place, place], color=COLOURS[said], linewidth=1.6, solid_capstyle="butt")
        axis.plot([middle], [place], SHAPES[said], color=COLOURS[said], markersize=5.5)
    axis.set_yticks(range(len(shown)), labels, fontsize=8)
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_xlabel("change in standard deviations over videos, 95% interval", fontsize=8)
    axis.grid(axis="x", linewidth=0.4, color="#dddddd")
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    return _svg(figure)


def curves(log: Log) -> str:
    """What a run logged in training, or nothing without a log."""
    shown = [key for key in CURVES if log and key in log[-1]]
    return _panels([(key, log) for key in shown])


def over_time(log: Log) -> str:
    """Held-out measurements of a run over its steps, and its held-out reward against the held-out judge.

    Nothing where the run made none.
    """
    rows = [row for row in log if any(key.startswith("heldout_") for key in row)]
    shown = list(dict.fromkeys(key for row in rows for key in row if key.startswith("heldout_")))
    path = [row for row in rows if REWARD in row and GOLD in row]
    return _panels([(key, rows) for key in shown], path if len(path) > 1 else [])


def _panels(shown: Sequence[tuple[str, Log]], path: Log = ()) -> str:
    """Small plots over the steps, three in a row; `path` adds one of the judge over the reward."""
    total = len(shown) + bool(path)
    if not total:
        return ""
    lines = (total + 2) // 3
    figure = _figure(9, 2.0 * lines, left=0.5, bottom=0.45 if path else 0.3, top=0.3)
    figure.subplots_adjust(wspace=0.3, hspace=0.45)
    for i, (key, rows) in enumerate(shown):
        axis = _panel(figure, lines, i, key.replace("_", " "))
        points = [(row["step"], row[key]) for row in rows if key in row]
        axis.plot(*zip(*points, strict=True), linewidth=1.2, color="#2a6fb0", marker="." if len(points) < 2 else None)
    if path:
        axis = _panel(figure, lines, total - 1, "gold over reward (held out)")
        rewards, golds = ([row[key] for row in path] for key in (REWARD, GOLD))
        axis.plot(rewards, golds, linewidth=1.2, color="#2a6fb0", marker=".", markersize=4)
        axis.plot(rewards[:1], golds[:1], "o", color="#777777", markersize=5)
        axis.annotate("start", (rewards[0], golds[0]), fontsize=7, xytext=(4, 4), textcoords="offset points")
        axis.set_xlabel("reward", fontsize=7)
    return _svg(figure)


def _figure(width: float, height: float, left: float, bottom: float, top: float = 0.1) -> Any:
    """All in inches. Margins that are given: to measure every label for them takes longer than to draw the picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left / width, bottom / height, 1 - 0.1 / width, 1 - top / height)
    return figure


def _panel(figure: Any, lines: int, place: int, title: str) -> Any:
    axis = figure.add_subplot(lines, 3, place + 1)
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    return axis


def _svg(figure: Any) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "vpo"}):  # else the names inside are drawn by chance
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
