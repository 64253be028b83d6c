"""How much of a trained LoRA is kept: a few strengths, measured on prompts neither trained on nor reported.

A step too far destroys some clips while it improves others, and a smaller strength undoes that (docs/methods.md).
The run's own reward decides, with motion kept; a held-out judge never does, or it would not be one any longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from vpo_kit.config import Selection
from vpo_kit.evaluation.evaluate import Evaluation
from vpo_kit.rewards.base import Mixture, add_fixed


@dataclass(frozen=True)
class Strength:
    """What one strength gave: mean reward and motion, and motion against that of the model before training."""

    strength: float
    reward: float
    motion: float
    motion_change: float


@dataclass(frozen=True)
class Choice:
    """The strength that is kept, what all gave (0 is the model before training), and a line that says why."""

    strength: float
    measured: Sequence[Strength]
    reason: str

    def facts(self) -> dict[str, Any]:
        """For the summary."""
        return {"strength": self.strength, "reason": self.reason, "measured": [asdict(one) for one in self.measured]}


def choose(settings: Selection, reward: Mixture, measure: Callable[[float], Evaluation]) -> Choice:
    """Measure the model before training and every strength, and choose; `measure` evaluates at a strength."""
    before = measure(0.0)
    still = fmean(before.metrics["motion"])
    base = Strength(0.0, _reward(reward, before.metrics), still, 0.0)
    found = []
    for strength in sorted(settings.strengths):
        metrics = measure(strength).metrics
        motion = fmean(metrics["motion"])
        found.append(Strength(strength, _reward(reward, metrics), motion, motion / still - 1 if still else 0.0))
    limit = settings.max_motion_change
    fitting = [one for one in found if abs(one.motion_change) <= limit]
    if not fitting:
        best = min(found, key=lambda one: abs(one.motion_change))
        change = f"{best.motion_change:+.1%}"
        reason = f"no strength keeps motion within {limit:.0%}: the one that changes it least ({change})"
    else:
        best = max(fitting, key=lambda one: one.reward)
        gain, change = best.reward - base.reward, f"{best.motion_change:+.1%}"
        left = len(found) - len(fitting)
        others = f", {left} others change motion by more than {limit:.0%}" if left else ""
        reason = f"reward {gain:+.3f} against the model before, motion {change}{others}"
        if best.reward <= base.reward:
            reason = f"no strength beats the model before training ({reason})"
    return Choice(best.strength, [base, *found], reason)


def _reward(reward: Mixture, metrics: Mapping[str, Sequence[float]]) -> float:
    """The mixture's mean on its fixed scales."""
    return fmean(add_fixed([(part.spec, w) for part, w in zip(reward.parts, reward.weights, strict=True)], metrics))
