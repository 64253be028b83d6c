"""The metrics of a batch of videos: every judge, every measure that is asked for, and the truth of a made world."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from vpo_kit.errors import ConfigError, DataError
from vpo_kit.evaluation.consistency import Consistency, Dino
from vpo_kit.evaluation.metrics import kind_of, known
from vpo_kit.evaluation.temporal import MotionAmount
from vpo_kit.measures import Measure
from vpo_kit.registry import METRICS
from vpo_kit.rewards.base import Reward
from vpo_kit.truth import Truth
from vpo_kit.video import check_finite

ALWAYS: tuple[Measure, ...] = (MotionAmount(),)


def load(names: Iterable[str], dino: Dino | None = None, judges: Sequence[Reward] = ()) -> list[Measure]:
    """Motion, and the measures with these names (``vpo metrics``, or ``package.module:Class``).

    Raises `ConfigError` for a name that is not known or stands for something else.
    """
    kinds = dict.fromkeys(kind_of(METRICS, name) for name in names)
    others = [kind for kind in kinds if kind is not MotionAmount]
    return [*ALWAYS, *(kind(dino, judges) if kind is Consistency else kind() for kind in others)]


def check_names(judges: Sequence[Reward]) -> None:
    """Raises `ConfigError` where a judge has the name of another metric, which it would hide."""
    clash = [judge.spec.name for judge in judges if judge.spec.name in known()]
    if clash:
        raise ConfigError(f"a reward called {clash[0]!r} cannot be a judge: a metric has that name")


@torch.no_grad()
def measure(
    video: Tensor,
    prompts: Sequence[str],
    judges: Sequence[Reward],
    fps: float,
    measures: Sequence[Measure] = ALWAYS,
    truth: Truth | None = None,
) -> dict[str, list[float]]:
    """Metrics of `video` ``[B, F, 3, H, W]`` by name. Raises `DataError` for a score that is not finite, and for a
    measure that gives other metrics, or other numbers of values, than it should.
    """
    found = {judge.spec.name: judge(video, prompts, fps=fps).score.float().tolist() for judge in judges}
    for name, scores in found.items():
        bad = [prompt for prompt, score in zip(prompts, scores, strict=True) if not math.isfinite(score)]
        if bad:
            check_finite(video, prompts)
            raise DataError(f"reward {name!r} is not finite for the prompt {bad[0]!r}: it cannot be used")
    for one in measures:
        found |= _checked(one, one(video, prompts, fps), len(video))
    return found | truth(video, prompts) if truth else found


def _checked(measure: Measure, values: Mapping[str, Sequence[float]], count: int) -> dict[str, list[float]]:
    name = type(measure).__name__
    if unknown := set(values) - {metric.name for metric in measure.metrics}:
        raise DataError(f"{name} gave {min(unknown)!r}, of which it has no facts: add it to its `metrics`")
    if wrong := [key for key, row in values.items() if len(row) != count]:
        raise DataError(f"{name} gave {len(values[wrong[0]])} values of {wrong[0]!r} for {count} videos")
    return {key: [float(value) for value in row] for key, row in values.items()}
