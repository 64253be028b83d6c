"""How much of a trained LoRA is kept: a few strengths, measured on prompts neither trained on nor reported.

A step too far destroys some clips while it improves others, and a smaller strength undoes that (docs/methods.md).
The run's own reward decides, with motion kept; a held-out judge never does, or it would not be one any longer. A few
dozen prompts cannot tell strengths apart that are nearly as good, and the smaller one gains less wherever the larger
one does no harm: within one standard error of the best the largest is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from vpo_kit.config import Selection
from vpo_kit.evaluation.samples import Results
from vpo_kit.rewards.base import Mixture, add_fixed


@dataclass(frozen=True)
class Strength:
    """What one strength gave: mean reward and motion, and motion against that of the model before training."""

    strength: float
    reward: float
    motion: float
    motion_change: float


@dataclass(frozen=True)
class Selected:
    """The strength that is kept, what all gave (0 is the model before training), and a line that says why."""

    strength: float
    measured: Sequence[Strength]
    reason: str

    def facts(self) -> dict[str, Any]:
        """The selection as the summary has it."""
        return {"strength": self.strength, "reason": self.reason, "measured": [asdict(one) for one in self.measured]}


def choose(settings: Selection, reward: Mixture, measure: Callable[[float], Results]) -> Selected:
    """Measure the model before training and every strength, and choose; `measure` evaluates at a strength."""
    before = measure(0.0)
    still = fmean(before.metrics["motion"])
    base = Strength(0.0, fmean(_rewards(reward, before.metrics)), still, 0.0)
    found, rewards = list[Strength](), dict[float, Sequence[float]]()
    for strength in sorted(settings.strengths):
        metrics = measure(strength).metrics
        motion, rewards[strength] = fmean(metrics["motion"]), _rewards(reward, metrics)
        moved = motion / still - 1 if still else 0.0
        found.append(Strength(strength, fmean(rewards[strength]), motion, moved))
    limit = settings.max_motion_change
    fitting = [one for one in found if abs(one.motion_change) <= limit]
    if not fitting:
        best = min(found, key=lambda one: abs(one.motion_change))
        change = f"{best.motion_change:+.1%}"
        reason = f"no strength keeps motion within {limit:.0%}: the one that changes it least ({change})"
    else:
        top = max(fitting, key=lambda one: one.reward)
        best = max(
            (one for one in fitting if _alike(rewards[top.strength], rewards[one.strength])),
            key=lambda one: one.strength,
        )
        gain, change = best.reward - base.reward, f"{best.motion_change:+.1%}"
        left = len(found) - len(fitting)
        others = f", {left} others change motion by more than {limit:.0%}" if left else ""
        reason = f"reward {gain:+.3f} against the model before, motion {change}{others}"
        if best != top:
            reason += f", as good as {top.strength:g} within one standard error"
        if best.reward <= base.reward:
            reason = f"no strength beats the model before training ({reason})"
    return Selected(best.strength, [base, *found], reason)


def _rewards(reward: Mixture, metrics: Mapping[str, Sequence[float]]) -> list[float]:
    """The mixture on its fixed scales, of each video."""
    return add_fixed([(part.spec, w) for part, w in zip(reward.parts, reward.weights, strict=True)], metrics)


def _alike(best: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the mean of `other` is within one standard error below that of `best`, video by video."""
    apart = [a - b for a, b in zip(best, other, strict=True)]
    return fmean(apart) <= (stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else 0.0)
