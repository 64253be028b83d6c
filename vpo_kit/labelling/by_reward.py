"""Any reward or mixture as labeller: ``reward:NAME``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit.errors import ConfigError
from vpo_kit.labelling.by_scores import ByScores
from vpo_kit.pairing.records import Pair, Scores
from vpo_kit.pairing.settings import Cutting, Labelling
from vpo_kit.rewards import loading
from vpo_kit.rewards.base import Mixture


class RewardScorer:
    """A scorer by a mixture's fixed scales; `device` is where the mixture's weights are."""

    def __init__(self, name: str, reward: Mixture, device: torch.device) -> None:
        self.name = f"reward:{name}"
        self._reward, self._device = reward, device

    @torch.no_grad()
    def __call__(self, first: Tensor, second: Tensor, pair: Pair) -> Scores:
        if pair.strategy == "imported":  # its members may have nothing in common: each is judged whole
            one, other = (
                float(self._reward.fixed(video[None].to(self._device), [pair.prompt], fps=member.fps).score)
                for video, member in zip((first, second), pair.videos, strict=True)
            )
            return Scores(first=[one], second=[other], first_clip=one, second_clip=other)
        videos = torch.stack([first, second]).to(self._device)
        found = self._reward.fixed(videos, [pair.prompt] * 2, fps=pair.fps, segments=pair.segments)
        assert found.segments is not None
        parts, clips = found.segments.tolist(), found.score.tolist()
        return Scores(first=parts[0], second=parts[1], first_clip=clips[0], second_clip=clips[1])


class RewardLabelling(Labelling):
    """The settings of `vpo label --with reward:NAME`."""

    reward: str = Field("", exclude=True, description="which one; written behind the labeller's name")


class ByReward(ByScores):
    """A registered reward, or several with weights, on all segments of both members."""

    Config: ClassVar[type[Cutting]] = RewardLabelling
    argument: ClassVar[str | None] = "reward"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if not config.reward:
            raise ConfigError("labels of a reward come from reward:NAME (vpo rewards lists them)")
        self._plans = loading.plan(config.reward, {})

    def locate(self) -> None:
        loading.locate(self._plans)

    def doubts(self, model: str) -> list[str]:
        return loading.foreign(self._plans, model)

    def judge(self, device: torch.device, *, offload: bool = False) -> Mixture:
        return loading.load(self._plans, device, offload=offload)

    @property
    def name(self) -> str:
        return f"reward:{self.config.reward}"

    def facts(self) -> dict[str, Any]:
        return {"licences": {plan.spec.name: plan.spec.licence for plan in self._plans}}

    def scorer(self, device: torch.device) -> Callable[[Tensor, Tensor, Pair], Scores]:
        return RewardScorer(self.config.reward, self.judge(device), device)
