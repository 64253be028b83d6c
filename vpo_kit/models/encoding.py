"""Prompts are encoded once: in a run, and with a folder for them over all runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from vpo_kit.models.base import VideoModel
from vpo_kit.models.cache import DiskCache, text_facts
from vpo_kit.models.conditions import Conditions

Encode = Callable[[Sequence[str]], Conditions]
"""Prompts to what the network sees of them."""


class PromptCache:
    """Each prompt's encoding, made when it is first needed and then kept; with `disk` also for later runs. Where the
    network takes the guidance scale as an input, it is that of the model's settings for a training pass.

    Prompts are encoded one by one: in a batch the last bits would depend on the neighbours, and what is found on disk
    must be what would have been computed.
    """

    def __init__(self, model: VideoModel, disk: DiskCache | None = None) -> None:
        self._model = model
        self._disk = disk
        self._known: dict[str, Conditions] = {}

    def __call__(self, prompts: Sequence[str]) -> Conditions:
        for prompt in prompts:
            if prompt not in self._known:
                self._known[prompt] = self._find(prompt)
        found = Conditions.cat([self._known[p] for p in prompts])
        return found.with_guidance(self._model.settings.embedded_guidance) or found

    def _find(self, prompt: str) -> Conditions:
        if self._disk is None:
            return Conditions(dict(self._encode(prompt)))
        found = self._disk.get("prompts", {**self._facts, "prompt": prompt}, lambda: self._encode(prompt))
        return Conditions({name: value.to(self._model.device) for name, value in found.items()})

    def _encode(self, prompt: str) -> Mapping[str, Tensor]:
        return self._model.encode_prompts([prompt]).tensors

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return text_facts(self._model)
