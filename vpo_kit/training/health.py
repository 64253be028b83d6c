"""Checks that stop a run which looks busy and is not improving the model. Pure functions over the logged reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from vpo_kit import config
from vpo_kit.errors import ConfigError, HealthError
from vpo_kit.registry import nearest

Report = dict[str, float]
Check = Callable[[Sequence[Report], int], str | None]


def _mean(rows: Sequence[Report], key: str) -> float | None:
    values = [row[key] for row in rows if key in row]
    return sum(values) / len(values) if values else None


def no_learning(history: Sequence[Report], window: int) -> str | None:
    """The loss sits at ln 2, where policy and reference are the same."""
    if len(history) < 3 * window or "implicit_accuracy" not in history[-1]:
        return None
    off = [abs(row["loss"] - math.log(2)) for row in history[-2 * window :]]
    return "the loss has stayed at ln 2: raise optimiser.lr or method.beta" if max(off) < 1e-3 else None


def winner_error(history: Sequence[Report], window: int) -> str | None:
    """The winner's error rises with the loser's: the model gets worse at both, which a margin does not show."""
    winner, loser = (_mean(history[-window:], f"{who}_error_change") for who in ("winner", "loser"))
    if len(history) < window or winner is None or loser is None or min(winner, loser) < 0.1:
        return None
    return (
        f"the errors of winners and losers are up {winner:.0%} and {loser:.0%}: lower optimiser.lr or raise method.beta"
    )


def margin_runaway(history: Sequence[Report], window: int) -> str | None:
    """Nothing is left of the gradient of nearly every pair."""
    factor = _mean(history[-window:], "gradient_factor")
    if len(history) < window or factor is None or factor > 0.01:
        return None
    return f"the margin has run away (gradient factor {factor:.3f}): lower method.beta or set method.margin_cap"


def motion_collapse(history: Sequence[Report], window: int) -> str | None:
    """The policy's videos move much less than they did at the start of the run."""
    before, now = _mean(history[:window], "motion"), _mean(history[-window:], "motion")
    if len(history) < 2 * window or before is None or now is None or now > 0.6 * before:
        return None
    return f"motion has fallen from {before:.4f} to {now:.4f}: the reward prefers still videos, mix in another one"


CHECKS: dict[str, Check] = {
    "no_learning": no_learning,
    "winner_error": winner_error,
    "margin_runaway": margin_runaway,
    "motion_collapse": motion_collapse,
}


def validate(settings: config.Health) -> None:
    """Raises `ConfigError` for a check that does not exist."""
    for name in settings.disable:
        if name not in (*CHECKS, "not_finite"):
            raise ConfigError(f"health.disable: unknown check {name!r}{nearest(name, [*CHECKS, 'not_finite'])}")


def check(history: Sequence[Report], settings: config.Health) -> None:
    """Raises `HealthError` with the name of the first check that fires on the history's last row."""
    step, row = len(history), history[-1]
    bad = [key for key, value in row.items() if not math.isfinite(value)]
    if bad and "not_finite" not in settings.disable:
        raise HealthError("not_finite", f"step {step}: {', '.join(bad)} is not finite; the last checkpoint is kept")
    for name, test in CHECKS.items():
        message = None if name in settings.disable else test(history, settings.window)
        if message:
            raise HealthError(name, f"step {step}: {message} (--set health.disable=[{name}] turns this check off)")
