"""The pictures of a report: every change with its interval, and what runs logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from vpo_kit.evaluation.metrics import about, verdict
from vpo_kit.evaluation.statistics import Paired
from vpo_kit.pages import charts, forests
from vpo_kit.pages.charts import Series
from vpo_kit.pages.forests import Change

CURVES = ("reward_mean", "implicit_accuracy", "motion", "loss", "margin", "gradient_factor")
REWARD, GOLD = "heldout_reward", "heldout_gold"
NOTES = {"lower": " (less is right)", "higher": "", "neutral": " (no direction)"}

Log = Sequence[Mapping[str, float]]
"""The rows of a run's ``metrics.jsonl``."""
Logs = Mapping[str, Log]
"""The logs of several runs, by their names."""


def forest(changes: Mapping[str, Paired]) -> Markup:
    """Every change with its interval, in standard deviations over videos, so that all metrics share one axis; right is
    better, and where nothing is better it is more. Nothing for metrics that have no spread.
    """
    shown = []
    for name, change in changes.items():
        if not change.spread > 0:
            continue
        sign = -1 if about(name).direction == "lower" else 1
        low, middle, high = (sign * value / change.spread for value in (change.low, change.difference, change.high))
        line = Change(
            name=name.replace("_", " ") + NOTES[about(name).direction],
            low=min(low, high),
            middle=middle,
            high=max(low, high),
            kind=verdict(name, change),
            figures=f"{middle:+z.2f} [{min(low, high):+z.2f}, {max(low, high):+z.2f}]",
        )
        shown.append(line)
    return forests.forest(shown)


def curves(logs: Logs) -> Markup:
    """What runs logged in training, each quantity in a picture of all runs that have it; nothing without logs."""
    keys = [key for key in CURVES if any(key in row for log in logs.values() for row in log)]
    return _panels(logs, keys, [])


def over_time(logs: Logs) -> Markup:
    """Held-out measurements of runs over their steps, and the held-out judge over the held-out reward.

    Nothing where no run made any.
    """
    found = {name: [row for row in log if any(key.startswith("heldout_") for key in row)] for name, log in logs.items()}
    keys = dict.fromkeys(key for log in found.values() for row in log for key in row if key.startswith("heldout_"))
    paths = {name: [row for row in log if REWARD in row and GOLD in row] for name, log in found.items()}
    shown = [
        Series(
            name=name,
            points=[(row[REWARD], row[GOLD]) for row in path],
            kind=_kind(logs, name),
            notes=[f"step {row['step']:.0f}" for row in path],
        )
        for name, path in paths.items()
        if len(path) > 1
    ]
    both = [charts.chart("gold over reward (held out)", shown, "reward", "gold")] if shown else []
    return _panels(found, list(keys), both)


def _panels(logs: Logs, keys: Sequence[str], more: Sequence[Markup]) -> Markup:
    """Small plots over the steps, and the legend of their runs."""
    shown = {
        key: [
            Series(name=name, points=[(row["step"], row[key]) for row in log if key in row], kind=_kind(logs, name))
            for name, log in logs.items()
        ]
        for key in keys
    }
    found = [charts.chart(key.replace("_", " "), series) for key, series in shown.items()] + list(more)
    if not found:
        return Markup()
    names = [Series(name=name, points=[], kind=_kind(logs, name)) for name, log in logs.items() if log]
    return Markup('{}<div class="charts">{}</div>').format(charts.legend(names, marks=False), Markup("").join(found))


def _kind(logs: Logs, name: str) -> int:
    return list(logs).index(name)
