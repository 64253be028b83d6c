"""One step of a method that learns from fresh videos, on a tiny model whose policy is moved off the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tests.support.brief_runs import PROMPTS
from vpo_kit.config import Lora
from vpo_kit.methods.base import Batch
from vpo_kit.methods.from_rollouts import FromRollouts
from vpo_kit.models.base import VideoModel
from vpo_kit.registry import METHODS
from vpo_kit.rewards.base import Mixture, Reward
from vpo_kit.testing.rewards import Brightness
from vpo_kit.testing.steps import context_of, gradients
from vpo_kit.training.lora import LoraPolicy


class Member:
    """A method and its policy; `moved` says how far the LoRA is from its start."""

    def __init__(self, model: VideoModel, name: str, moved: float = 0.0, **settings: Any) -> None:
        self.model = model
        self.policy = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0)
        self.move(moved)
        context = {key: settings.pop(key) for key in ("micro_batch_size", "reward") if key in settings}
        reward: Reward | Mixture = context.pop("reward", Brightness())
        kind = METHODS.load(name)
        self.context = context_of(self.policy, reward, batch_size=2, **context)
        self.method: FromRollouts = kind(kind.Config(**{"num_candidates": 3, **settings}), self.context)
        self.batch = Batch(
            step=0,
            settings=self.context.sampling,
            prompts=PROMPTS,
            conditions=model.encode_prompts(PROMPTS),
            positions=[0, 1],
            indices=[0, 1],
            visits=[0, 0],
        )

    def move(self, by: float) -> None:
        with torch.no_grad():
            for i, parameter in enumerate(self.policy.parameters):
                parameter.add_(by * (i % 3))

    def gradient(self, step: int = 0) -> Tensor:
        """Of one step, all weights in one row; in the type of the weights."""
        output = self.method.step(self.batch.at(step))
        return torch.cat([g.flatten() for g in gradients(output, self.policy.parameters)])


@contextmanager
def member(model: VideoModel, name: str, moved: float = 0.0, **settings: Any) -> Iterator[Member]:
    """A `Member` whose adapters are gone afterwards."""
    try:
        yield Member(model, name, moved, **settings)
    finally:
        forget(model)


def forget(model: VideoModel) -> None:
    """Take all LoRAs off a model, the active one last."""
    model.network.delete_adapters(sorted(model.network.peft_config, key=lambda name: name == "default"))
