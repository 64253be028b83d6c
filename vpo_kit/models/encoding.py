"""Prompts are encoded once."""

from __future__ import annotations

from collections.abc import Sequence

from vpo_kit.models.base import Conditions, VideoModel


class PromptCache:
    """Each prompt's encoding, made when it is first needed and then kept."""

    def __init__(self, model: VideoModel) -> None:
        self._model = model
        self._known: dict[str, Conditions] = {}

    def __call__(self, prompts: Sequence[str]) -> Conditions:
        new = [p for p in dict.fromkeys(prompts) if p not in self._known]
        if new:
            encoded = self._model.encode_prompts(new)
            self._known.update({p: encoded[i : i + 1] for i, p in enumerate(new)})
        return Conditions.cat([self._known[p] for p in prompts])
