"""What people said of a row, made up."""

from __future__ import annotations

from typing import Any

from vpo_kit.evaluation.people import PeopleSay


def say(study: str = "first", **more: Any) -> PeopleSay:
    """62% of wins by four people, with what is given in its place."""
    rate = {"win_rate": 0.62, "low": 0.55, "high": 0.7}
    odds = {"log_odds": 0.49, "log_odds_low": 0.2, "log_odds_high": 0.85}
    return PeopleSay(**{"study": study, **rate, **odds, "verdicts": 90, "raters": 4, "alpha": 0.41, **more})
