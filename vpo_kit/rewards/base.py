"""What a reward is, and how a mixture of rewards is written and put together.

Legend: ``B`` videos, ``F`` frames, ``S`` segments. Video is float ``[B, F, 3, H, W]`` in [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from vpo_kit.errors import ConfigError, DataError
from vpo_kit.video import check_finite

Segments = Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class RewardSpec:
    """Facts about a reward that users and methods need before they load it."""

    name: str
    licence: str
    source: str
    """The source of the weights."""
    scale: str
    """Range and direction in words; higher is always better."""
    differentiable: bool
    per_segment: bool
    needs_prompt: bool
    for_training: bool = True
    """Whether it may be trained on: False for a held-out judge, which no training run may see."""
    per_frame: bool = False
    """Whether each frame is scored on its own: then only the frames that are looked at need be decoded."""
    self_contained: bool = False
    """Whether all that it needs ships with the package."""
    embedded_only: bool = False
    """Whether it is a judge that was trained and validated on the embedded model's world, and means little elsewhere.
    """
    in_groups: bool = False
    """Whether it only compares the candidates of one prompt: a video alone has no score then."""
    mean: float = 0.0
    std: float = 1.0
    """Typical mean and spread over good clips: the fixed scale on which a mixture adds rewards."""


@dataclass(frozen=True)
class RewardOutput:
    """`score` ``[B]``, higher is better; `segments` ``[B, S]`` where asked for; `components`, each ``[B]``."""

    score: Tensor
    segments: Tensor | None = None
    components: dict[str, Tensor] = field(default_factory=dict)
    report: dict[str, float] = field(default_factory=dict)
    """What else is logged of a step, by names of its own."""


class RewardConfig(BaseModel):
    """Base of every reward's own settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Reward(nn.Module):
    """A judge of videos. A new one is a file with a `spec`, a `Config` and a `forward`."""

    spec: ClassVar[RewardSpec]
    Config: ClassVar[type[RewardConfig]] = RewardConfig
    argument: ClassVar[str | None] = None
    """The setting that may be written behind the name, as in ``remote:URL``."""

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        self.config = config if config is not None else self.Config()

    @classmethod
    def describe(cls, config: Any) -> RewardSpec:
        """The facts of this reward with these settings, before anything is loaded."""
        return cls.spec

    @classmethod
    def locate(cls, config: Any) -> list[Path]:
        """The files of weights that this reward reads with these settings, as far as they are known to be here.

        Nothing is read, and nothing asked of a network. Raises `ModelError` for a file that is missing.
        """
        return []

    @classmethod
    def check_prompts(cls, config: Any, prompts: Sequence[str]) -> None:
        """Raises `DataError` for a prompt of which this reward can say nothing; nothing is loaded."""

    def forward(
        self, video: Tensor, prompts: Sequence[str] | None = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        """Score `video` ``[B, F, 3, H, W]`` in [0, 1] at `fps`; `segments` are half-open ranges of frames."""
        raise NotImplementedError

    def among(self, video: Tensor, prompts: Sequence[str], *, fps: float, group: int) -> RewardOutput:
        """Score `video` as `forward` does; rows ``i * group ... (i + 1) * group - 1`` are one prompt's candidates."""
        return self(video, prompts, fps=fps)  # type: ignore[no-any-return]

    @classmethod
    def cost(cls, config: Any, *, candidates: int, frames: int, fps: float) -> Mapping[str, int]:
        """What judging the `candidates` of one prompt costs beside arithmetic: numbers by what they count."""
        return {}

    def spent(self) -> list[str]:
        """What its use has cost beside arithmetic, in lines for the end of a run."""
        return []


class Mixture(nn.Module):
    """A weighted sum of rewards; with several, each is standardised within a prompt's group before it is summed.

    Rewards live on different scales (an HPSv2 point is not a VQA point), and only the order within one prompt's
    candidates matters to a preference. A single reward keeps its own scale, so that margins stay readable.
    """

    def __init__(self, parts: Sequence[tuple[Reward, float]]) -> None:
        super().__init__()
        self.rewards = nn.ModuleList(reward for reward, _ in parts)
        self.weights = [weight for _, weight in parts]

    @property
    def parts(self) -> list[Reward]:
        return [reward for reward in self.rewards if isinstance(reward, Reward)]

    def fixed(
        self, video: Tensor, prompts: Sequence[str], *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        """Score `video` ``[B, F, 3, H, W]`` where there is no group to standardise in: several rewards are added as
        ``weight (score - mean) / std`` with each spec's own mean and std; a single one keeps its scale. The gradient
        passes.
        """
        found = [score_segments(r, video, prompts, fps=fps, segments=segments) for r in self.parts]
        if len(found) == 1:
            return found[0]
        scales = [(w, r.spec.mean, r.spec.std) for w, r in zip(self.weights, self.parts, strict=True)]
        total = torch.stack([w * (f.score - m) / s for f, (w, m, s) in zip(found, scales, strict=True)]).sum(0)
        parts = [w * (f.segments - m) / s for f, (w, m, s) in zip(found, scales, strict=True) if f.segments is not None]
        names = [r.spec.name for r in self.parts]
        components = {name: f.score for name, f in zip(names, found, strict=True)}
        return RewardOutput(total, torch.stack(parts).sum(0) if parts else None, components)

    def forward(
        self, video: Tensor, prompts: Sequence[str], *, fps: float, group: int, decoupled: bool = True
    ) -> RewardOutput:
        """Score `video` ``[B, F, 3, H, W]``; rows ``i * group ... (i + 1) * group - 1`` share a prompt. Several rewards
        are each standardised within its group and then added, or, not `decoupled`, added on their fixed scales.

        Raises `DataError` when a video, or what a reward gives, is not finite.
        """
        found = {r.spec.name: r.among(video, prompts, fps=fps, group=group) for r in self.parts}
        scores = {name: output.score.float() for name, output in found.items()}
        report = {key: value for output in found.values() for key, value in output.report.items()}
        for name, score in scores.items():
            if not torch.isfinite(score).all():
                check_finite(video, prompts)
                bad = int((~torch.isfinite(score)).nonzero()[0])
                raise DataError(f"reward {name!r} is not finite for the prompt {prompts[bad]!r}: it cannot be used")
        if len(scores) == 1:
            return RewardOutput(next(iter(scores.values())), components=scores, report=report)
        total = torch.zeros_like(next(iter(scores.values())))
        for weight, score, reward in zip(self.weights, scores.values(), self.parts, strict=True):
            if not decoupled:
                total = total + weight * (score - reward.spec.mean) / reward.spec.std
                continue
            rows = score.view(-1, group)
            spread = rows.std(1, keepdim=True, correction=0).clamp_min(1e-6)
            total = total + weight * ((rows - rows.mean(1, keepdim=True)) / spread).flatten()
        return RewardOutput(total, components=scores, report=report)


def add_fixed(parts: Sequence[tuple[RewardSpec, float]], scores: Mapping[str, Sequence[float]]) -> list[float]:
    """Each video's score under a mixture, from its parts' `scores` by name: as `Mixture.fixed` adds them."""
    if len(parts) == 1:
        return list(scores[parts[0][0].name])
    scaled = [[w * (value - spec.mean) / spec.std for value in scores[spec.name]] for spec, w in parts]
    return [sum(values) for values in zip(*scaled, strict=True)]


def enough_frames(name: str, video: Tensor, least: int) -> None:
    """Raises `DataError` for `video` ``[B, F, 3, H, W]`` of fewer than `least` frames."""
    if video.shape[1] < least:
        frames = "a single one" if video.shape[1] == 1 else str(video.shape[1])
        raise DataError(f"reward {name!r} judges motion and needs at least {least} frames, not {frames}")


def score_segments(
    reward: Reward, video: Tensor, prompts: Sequence[str], *, fps: float, segments: Segments | None
) -> RewardOutput:
    """Clip scores and, where asked for, segment scores, also of a reward that only knows whole clips."""
    if segments is None or reward.spec.per_segment:
        return reward(video, prompts, fps=fps, segments=segments)  # type: ignore[no-any-return]
    whole = reward(video, prompts, fps=fps)
    parts = [reward(video[:, start:end], prompts, fps=fps).score for start, end in segments]
    return RewardOutput(whole.score, torch.stack(parts, 1), whole.components)


_PORT_LAST = re.compile(r"://(\[[^\]]*\]|[^/:]*):\d+$")


def parse(text: str) -> list[tuple[str, float]]:
    """``"vqa"``, ``"vqa:0.7+hpsv2:0.3"``, ``"package.module:Class"`` or ``"remote:http://host:8000:0.5"`` to names
    (with what is written behind them) and weights.

    A whole number right behind a URL's host is its port, not a weight; ``http://host/:2`` has no port and weight 2.

    Raises `ConfigError` for an empty name, a repeated one, or a weight that is not a positive number.
    """
    parts: list[tuple[str, float]] = []
    for term in text.split("+"):
        name, colon, last = term.strip().rpartition(":")
        try:
            weighted = colon and not _PORT_LAST.search(term.strip())
            part = (name, float(last)) if weighted else (term.strip(), 1.0)
        except ValueError:
            part = (term.strip(), 1.0)  # package.module:Class
        if not part[0] or not part[1] > 0 or part[1] == float("inf"):
            raise ConfigError(f"reward {text!r}: write name or name:weight, joined by +, with weights above zero")
        parts.append(part)
    names = [name for name, _ in parts]
    if len(set(names)) != len(names):
        raise ConfigError(f"reward {text!r} names a reward twice: add the weights up instead")
    return parts
