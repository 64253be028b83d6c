"""`vpo metrics`: the metrics of the built-in measures, of sets and of made worlds, in the order of a table."""

from __future__ import annotations

from vpo_kit import catalogue
from vpo_kit.cli.listing import show_plugins
from vpo_kit.cli.options import app

BETTER = {"higher": "more is better", "lower": "less is better", "neutral": "no better and no worse"}


@app.command()
def metrics() -> None:
    """List what can be measured beside rewards, and what each metric needs."""
    from vpo_kit.registry import METRICS, TRUTHS

    for name, facts in catalogue.metrics().items():
        needed = [f"needs {', '.join(facts.needs)}"] if facts.needs else []
        print(f"{name}  ({'; '.join([facts.unit, BETTER[facts.direction], *needed])})\n    {facts.about}")
    for registry in (METRICS, TRUTHS):
        show_plugins(registry)
