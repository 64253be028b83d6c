"""A labeller as reward: ``--reward pairwise:NAME``. It only compares, so the candidates of a prompt play a tournament.

Legend: ``B`` videos, ``n`` candidates of a prompt. Video is ``[B, F, 3, H, W]`` in [0, 1].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from vpo_kit.errors import ConfigError, DataError
from vpo_kit.labelling import base
from vpo_kit.labelling.comparing import Comparer, Match
from vpo_kit.labelling.tournament import Game, Kind, games, play
from vpo_kit.rewards.base import Reward, RewardConfig, RewardOutput, RewardSpec, Segments


class PairwiseConfig(RewardConfig):
    """Who compares, and how many comparisons there are."""

    labeller: str = Field("", description="vlm:MODEL, reward:NAME, ...; written behind the reward's name")
    labelling: dict[str, Any] = Field({}, description="the labeller's own settings, segment_seconds among them")
    tournament: Kind = Field(
        "auto", description="all: each two candidates meet; knockout: as few comparisons as find the best and the "
        "worst; auto: all for at most four candidates",
    )  # fmt: skip


class Pairwise(Reward):
    """The share of its comparisons that a candidate wins among those of its prompt."""

    Config: ClassVar[type[RewardConfig]] = PairwiseConfig
    argument: ClassVar[str | None] = "labeller"
    spec: ClassVar[RewardSpec] = RewardSpec(
        name="pairwise",
        licence="the labeller's",
        source="a labeller of pairs: pairwise:NAME",
        scale="share of comparisons won among a prompt's candidates, 0 to 1",
        differentiable=False,
        per_segment=False,
        needs_prompt=False,
        in_groups=True,
        mean=0.5,
        std=0.37,  # of four candidates that are told apart
    )
    config: PairwiseConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.spec = self.describe(self.config)  # type: ignore[misc]  # one labeller's name, not the class's
        self._labeller = _planned(self.config)
        self._comparer: Comparer | None = None
        self._counts = Counter[str]()

    @classmethod
    def describe(cls, config: PairwiseConfig) -> RewardSpec:
        """Raises `ConfigError` for a labeller that is unknown, lacks a setting or cannot compare two clips."""
        _planned(config)
        return replace(cls.spec, name=f"pairwise:{config.labeller}")

    @classmethod
    def locate(cls, config: PairwiseConfig) -> list[Path]:
        if config.labeller:
            _planned(config).locate()
        return []

    @classmethod
    def cost(cls, config: PairwiseConfig, *, candidates: int, frames: int, fps: float) -> Mapping[str, int]:
        number = games(config.tournament, candidates)
        requests = number * _planned(config).requests(frames, fps)
        return {"comparisons": number, **({"requests": requests} if requests else {})}

    def forward(
        self, video: Tensor, prompts: Sequence[str] | None = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        """Raises `ConfigError`: a video alone has no score."""
        raise ConfigError(f"reward {self.spec.name!r} compares the candidates of a prompt: it scores no video alone")

    def among(self, video: Tensor, prompts: Sequence[str], *, fps: float, group: int) -> RewardOutput:
        """Raises `DataError` where no comparison was answered, and whatever the labeller cannot go on after."""
        if self._comparer is None:
            self._comparer = self._labeller.comparer(video.device)
        comparer = self._comparer
        assert comparer is not None

        def ask(asked: Sequence[Game]) -> list[int | None]:
            return comparer.compare([Match(video[a], video[b], prompts[a], fps) for a, b in asked])

        found = play(len(video) // group, group, self.config.tournament, ask)
        self._counts.update(comparisons=found.asked, ties=found.ties, failed=found.failed)
        if found.failed == found.asked:
            raise DataError(f"reward {self.spec.name!r}: none of {found.asked} comparisons of a step was answered")
        report = {
            "comparisons_tied": found.ties / (found.asked - found.failed),
            "comparisons_failed": found.failed / found.asked,
        }
        return RewardOutput(video.new_tensor(found.scores), report=report)

    def spent(self) -> list[str]:
        if self._comparer is None:
            return []
        counts = ", ".join(f"{self._counts[name]} {name}" for name in ("comparisons", "ties", "failed"))
        return [f"{self.spec.name}: {line}" for line in (counts, *self._comparer.spent())]


def _planned(config: PairwiseConfig) -> base.Labeller:
    if not config.labeller:
        raise ConfigError("write pairwise:NAME with a labeller that compares two clips: pairwise:vlm:MODEL, ...")
    found = base.plan(config.labeller, config.labelling, "reward.labelling.")
    if not found.compares:
        raise ConfigError(
            f"reward pairwise:{config.labeller}: labeller {config.labeller!r} labels whole sets and cannot be asked "
            "about two clips while a run waits"
        )
    return found
