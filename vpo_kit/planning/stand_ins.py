"""What stands in for the data of a rehearsed run: prompts, and a full batch of whatever the method learns from."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vpo_kit.methods.base import Batch
from vpo_kit.models.base import VideoModel
from vpo_kit.models.buckets import parse
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.settings import Settings
from vpo_kit.planning.estimate import Subject

PROMPT = "a red circle moving right slowly"


class StandIns:
    """The data of one rehearsal; `notes` gets what a plan has to say of it."""

    def __init__(
        self, subject: Subject, model: VideoModel, settings: Settings, fake: FakeTensorMode, notes: list[str]
    ) -> None:
        self._subject, self._model, self._settings, self._fake, self._notes = subject, model, settings, fake, notes

    def encode(self, encode: PromptCache) -> Conditions:
        """What the batch is made from, after all that is encoded beside it."""
        encode([self._settings.negative_prompt])
        if self._subject.most_measured:
            encode([self._model.example(PROMPT)])
        return encode([self._model.example(prompt) for prompt in self._prompts], self._largest)

    def batch(self, encode: PromptCache) -> Batch:
        """A full batch of the largest size."""
        s, prompts, conditions, data = self._largest, self._prompts, self.encode(encode), self._subject.data
        size, shape = len(prompts), self._model.latent_shape(*s.size)
        numbers, tensors = list(range(size)), dict[str, Tensor]()
        if data == "videos":
            with self._fake:
                clip = torch.empty(1, s.frames, 3, s.height, s.width)
            self._model.encode(clip)
        if data != "prompts":
            tensors = {name: torch.zeros(size, *shape) for name in ("first", "second", "clip")}
            tensors |= {"labels": torch.ones(size, shape[1]), "label": torch.ones(size), "motion": torch.ones(size, 2)}
        if data == "videos" and self._subject.method.needs.ratings:
            tensors |= {name: torch.ones(size) for name in ("rating", "standing", "middle")}
        return Batch(
            step=0,
            settings=s,
            prompts=prompts,
            conditions=conditions,
            positions=numbers,
            indices=numbers,
            visits=[0] * size,
            tensors=tensors,
        )

    @property
    def _prompts(self) -> list[str]:
        return [f"{PROMPT} {i}" for i in range(-(-self._subject.run.batch_size // self._subject.processes))]

    @cached_property
    def _largest(self) -> Settings:
        """The settings of a batch of the largest bucket, which is what has to fit."""
        buckets = [parse(words) for words in self._subject.run.data.buckets]
        if not buckets:
            return self._settings
        found = max(buckets, key=math.prod)
        self._notes.append(f"planned for the largest of {len(buckets)} buckets, {found}")
        return self._settings.sized(found)
