"""Pictures of what runs have logged."""

from __future__ import annotations

from vpo_kit.evaluation import plots


def test_a_quantity_that_the_last_step_lacks_has_its_curve() -> None:
    """A margin is a mean over labels, and a batch may have none."""
    rows = [{"step": 1.0, "loss": 0.7, "margin": 0.1}, {"step": 2.0, "loss": 0.6, "margin": 0.2}]
    shown = plots.curves({"run": [*rows, {"step": 3.0, "loss": 0.5}]})
    assert all(name in shown for name in ("loss", "margin"))
    assert "gradient_factor" not in shown
