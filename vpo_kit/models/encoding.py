"""Prompts and pictures are encoded once: in a run as far as memory is given to it, with a folder over all runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor

from vpo_kit.errors import DataError
from vpo_kit.inputs import Inputs, inputs_of
from vpo_kit.models.base import VideoModel
from vpo_kit.models.cache import DiskCache, picture_facts, text_facts
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.kept import MOST_BYTES, Kept
from vpo_kit.models.settings import Settings


class Encode(Protocol):
    """Prompts, with pictures or without, to what the network sees of them in videos of `settings`, which are the
    model's own where they are not given.
    """

    def __call__(self, items: Sequence[str | Inputs], settings: Settings | None = None) -> Conditions: ...


class PromptCache:
    """What is encoded of a prompt, and of its pictures, made when it is first needed and then kept; with `disk` also
    for later runs. Where the network takes the guidance scale as an input, it is that of the model's settings for a
    training pass.

    Items are encoded one by one: in a batch the last bits would depend on the neighbours, and what is found on disk
    must be what would have been computed. What is kept waits on the CPU; when it is more than `most_bytes`, those parts
    leave that were not asked for the longest.
    """

    def __init__(self, model: VideoModel, disk: DiskCache | None = None, most_bytes: int = MOST_BYTES) -> None:
        self._model = model
        self._disk = disk
        self._kept = Kept(most_bytes)

    @property
    def num_bytes(self) -> int:
        """How much is kept in memory."""
        return self._kept.num_bytes

    def __call__(self, items: Sequence[str | Inputs], settings: Settings | None = None) -> Conditions:
        with self._model.at(settings or self._model.settings):
            found = Conditions.cat([self._find(inputs_of(item)) for item in items])
        there = found.to(self._model.device)
        return there.with_guidance(self._model.settings.embedded_guidance) or there

    def ahead(
        self, items: Iterable[tuple[str | Inputs, Settings]], on_notice: Callable[[str], None] = lambda _: None
    ) -> None:
        """Encode all items, each for videos of its settings, before the networks are needed; then the encoders of a
        model whose encoders come late leave. What is in memory or on disk already loads nothing.

        Where what is encoded is more than is kept, and no disk keeps it, the encoders stay, and `on_notice` says so.
        """
        encoders = self._model.encoders
        if encoders is None:  # they are always there
            return
        with encoders.first():
            for item, settings in items:
                with self._model.at(settings), suppress(DataError):  # an item that cannot be read is named in its turn
                    self._find(inputs_of(item))
                if self._kept.has_lost and not (self._disk and self._disk.writes):
                    on_notice(
                        f"what is encoded of the run's prompts is more than {self._kept.most_bytes / 1e9:.1f} GB, so "
                        "the text encoder stays in memory: --set cache=DIR keeps all of it on disk"
                    )
                    return
            encoders.leave()

    def _find(self, item: Inputs) -> Conditions:
        model, own = self._model, dict[str, Any]()
        if item.pictures:
            model.check_inputs([item])
            settings = model.settings
            own = {"pictures": item.keys, "size": list(settings.size)}
        if own and model.text_sees_pictures:
            shown = {"prompt": item.prompt, **own}
            text = self._part("prompts", shown, lambda: model.encode_texts([item]).tensors)
        else:
            alone = {"prompt": item.prompt}
            text = self._part("prompts", alone, lambda: model.encode_prompts([item.prompt]).tensors)
        if not own:  # of a negative prompt, which sees the pictures of the others
            return Conditions(dict(text))
        return Conditions({**text, **self._part("pictures", own, lambda: model.encode_images([item]))})

    def _part(self, kind: str, own: dict[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        return self._kept.get((kind, repr(own)), lambda: self._stored(kind, own, make))

    def _stored(self, kind: str, own: dict[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        if self._disk is None:
            return {name: value.cpu() for name, value in make().items()}
        facts = self._text_facts if kind == "prompts" else self._picture_facts
        return self._disk.get(kind, {**facts, **own}, make)

    # each hashes weights, and only when it is asked for
    @cached_property
    def _text_facts(self) -> dict[str, Any]:
        return text_facts(self._model, self._disk)

    @cached_property
    def _picture_facts(self) -> dict[str, Any]:
        return picture_facts(self._model, self._disk)
