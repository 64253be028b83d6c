"""A method that learns from pairs, and its policy, moved off the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.methods.base import StepOutput
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.pairing import store
from vpo_kit.processes import Processes
from vpo_kit.registry import METHODS
from vpo_kit.testing.steps import context_of, gradients
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.paired import Pairs
from vpo_kit.training.stream import Stream


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


class Member:
    """A step on one batch of the set, with the policy moved off the reference."""

    def __init__(self, model: VideoModel) -> None:
        self.model = model
        self.policy = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0)
        with torch.no_grad():
            for i, parameter in enumerate(self.policy.parameters):
                parameter.add_(0.02 * (i % 3))

    def close(self) -> None:
        self.model.network.delete_adapters(["default"])

    def gradients(self, output: StepOutput) -> list[Tensor]:
        return gradients(output, self.policy.parameters)

    def step(
        self, path: Path, method: str, count: int = 8, micro_batch_size: int | None = None, **settings: Any
    ) -> StepOutput:
        kind = METHODS.load(method)
        config = kind.Config(**settings)
        found = store.read(path)
        source = Pairs(path, found.pairs, self.model.frame_map(9))
        encode, processes = PromptCache(self.model), Processes()
        context = context_of(self.policy, batch_size=count, scores=source.scores, micro_batch_size=micro_batch_size)
        stream = Stream(source, range(len(found.pairs)), count, 0, encode, processes, context.sampling)
        return kind(config, context).step(stream.batch(0, 0))  # type: ignore[no-any-return]
