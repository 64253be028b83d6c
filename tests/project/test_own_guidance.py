"""A family that is guided in a way of its own: everything that samples is guided so, and nothing else has to know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.brief_runs import PROMPTS
from tests.support.rollout_member import forget, member
from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.evaluation.samples import SamplePlan, videos
from vpo_kit.inputs import Inputs
from vpo_kit.methods.base import Batch
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.settings import Settings
from vpo_kit.registry import METHODS
from vpo_kit.sampler import Guidance
from vpo_kit.testing.rewards import Brightness
from vpo_kit.testing.steps import context_of
from vpo_kit.training.lora import LoraPolicy

SCALE = 3.0


class Kept(Guidance):
    """What is predicted with the prompt is kept as it is, at the price of two passes: as without guidance."""

    def combine(self, positive: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        assert scale == SCALE
        assert not torch.equal(positive, unconditional)
        return positive


@pytest.fixture
def model(tiny_wan: Path, monkeypatch: pytest.MonkeyPatch) -> VideoModel:
    found = models.load(str(tiny_wan))
    found.settings = found.settings.changed(guidance=SCALE)

    def own(settings: Settings, negative: Any, *, detached: bool = False) -> Guidance:
        assert isinstance(settings.guidance, float)
        return Kept(settings.guidance, negative, detached) if settings.guidance != 1 else Guidance(1.0, negative)

    monkeypatch.setattr(found, "guidance", own)
    return found


def evaluated(model: VideoModel, guidance: float) -> Tensor:
    settings = model.settings.changed(guidance=guidance)
    plan = SamplePlan(inputs=[Inputs("a red circle")], videos_per_prompt=2, settings=settings, batch_size=2, seed=0)
    return torch.cat([video for _, video in videos(model, plan, encode=PromptCache(model))])


def test_evaluation(model: VideoModel) -> None:
    assert torch.equal(evaluated(model, SCALE), evaluated(model, 1.0))


@pytest.mark.parametrize("name", ["online", "grpo"])
def test_rollouts(name: str, model: VideoModel) -> None:
    found = []
    for guidance in (SCALE, 1.0):
        with member(model, name, rollout_guidance=guidance, rollout_steps=3) as one:
            one.method.prepare(0)
            found.append(one.method._sample(one.batch)[0])
    assert torch.equal(*found)


def test_reward_gradients(model: VideoModel) -> None:
    found, kind = [], METHODS.load("draft")
    for guidance in (SCALE, 1.0):
        policy = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0)
        sampling = model.settings.changed(guidance=guidance)
        method = kind(kind.Config(), context_of(policy, Brightness(), sampling=sampling, batch_size=2))
        batch = Batch(
            step=0,
            settings=sampling,
            prompts=PROMPTS,
            conditions=model.encode_prompts(PROMPTS),
            positions=[0, 1],
            indices=[0, 1],
            visits=[0, 0],
        )
        loss = method.step(batch).loss
        assert loss is not None
        found.append(loss.detach())
        forget(model)
    assert torch.equal(*found)
