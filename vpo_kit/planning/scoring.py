"""The judges of a rehearsal: built from their settings, asked without data, and what they cost beside arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vpo_kit.errors import VpoError
from vpo_kit.methods.base import Method
from vpo_kit.models.settings import Settings
from vpo_kit.planning.estimate import Subject
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Mixture, Reward, RewardOutput


def build(plans: Sequence[rewards.RewardPlan]) -> Mixture:
    """The judges of a plan, frozen."""
    return Mixture([(plan.kind(plan.config), plan.weight) for plan in plans]).requires_grad_(False).eval()


def costs(subject: Subject, settings: Settings, method: Method) -> list[tuple[str, int, int]]:
    """What the rewards cost beside arithmetic, by the method's candidates; without a rollout nothing."""
    run, candidates = subject.run, getattr(subject.method_config, "num_candidates", 0)
    if not candidates:
        return []
    found, rollouts = Counter[str](), -(-run.steps // method.updates_per_batch)
    for part in subject.reward:
        own = part.kind.cost(part.config, candidates=candidates, frames=settings.frames, fps=settings.fps)
        found.update({f"{part.spec.name}: {what}": run.batch_size * number for what, number in own.items()})
    return [(what, number, number * rollouts) for what, number in found.items()]


def tried(judge: Reward, call: Callable[..., RewardOutput], notes: list[str]) -> Callable[..., RewardOutput]:
    """A reward that leaves torch (for a server, or numpy) cannot be rehearsed: it costs nothing, and one of `notes`."""

    def run(video: Tensor, prompts: Any = None, *, fps: float, segments: Any = None) -> RewardOutput:
        try:
            return call(video, prompts, fps=fps, segments=segments)
        except VpoError:
            raise
        except Exception as error:  # whatever a foreign reward does with a tensor that has no data
            note = f"reward {judge.spec.name} is not counted: it cannot run without data ({type(error).__name__})"
            notes.extend([] if note in notes else [note])
        parts = [video[:, a:b].flatten(1).mean(1) for a, b in segments or ()]
        return RewardOutput(video.flatten(1).mean(1), torch.stack(parts, 1) if parts else None)

    return run


def compared(video: Tensor, prompts: Sequence[str], *, fps: float, group: int) -> RewardOutput:
    """The stand-in of a reward's `among`, whose cost is counted in comparisons."""
    return RewardOutput(video.flatten(1).mean(1))
