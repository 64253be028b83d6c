"""Published weights on the Hugging Face hub: from a path, the folder for weights, the hub's cache, or downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

from vpo_kit.errors import ModelError
from vpo_kit.rewards.parts.weights import FOLDER


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """The place where a reward's weights are published, for finding them and for the one line that says they are
    missing.
    """

    reward: str
    repository: str
    names: tuple[str, ...]
    """The file; where a repository holds one of several, the best first."""
    size: str
    licence: str
    setting: str = "weights"

    def look(self, given: Path | None) -> list[Path]:
        """`given`, else the file in the folder of `FOLDER` or the cached one, or nothing where it is to be downloaded
        first. Raises `ModelError` where it cannot be.
        """
        if given is not None:
            if given.is_file():
                return [given]
            raise ModelError(f"there is no {given}: {self.advice}")
        shelf = os.environ.get(FOLDER)
        for path in self._shelved(Path(shelf)) if shelf else []:
            if path.is_file():
                return [path]
        for name in self.names:
            cached = huggingface_hub.try_to_load_from_cache(self.repository, name)
            if isinstance(cached, str):
                return [Path(cached)]
        if constants.is_offline_mode():
            raise self._missing("HF_HUB_OFFLINE is set")
        return []

    def find(self, given: Path | None) -> Path:
        """What `look` finds, else a download (`HF_HUB_OFFLINE` is respected). Raises `ModelError`."""
        if found := self.look(given):
            return found[0]
        for name in self.names:
            try:
                return Path(huggingface_hub.hf_hub_download(self.repository, name))
            except Exception:  # no such file, no access, no connection: the HTTP library adds errors of its own
                continue
        raise self._missing("the hub did not give it")

    def _shelved(self, shelf: Path) -> list[Path]:
        """Where it may lie in a folder of weights: under its own name, and under one that many have (``model.``,
        ``open_clip_``) in a folder of the repository's.
        """
        own = [name for name in self.names if not name.startswith(("model.", "open_clip_", "pytorch_model"))]
        return [*(shelf / name for name in own), *(shelf / Path(self.repository).name / name for name in self.names)]

    def _missing(self, why: str) -> ModelError:
        return ModelError(
            f"reward {self.reward!r} needs weights: they are not in the hub's cache and {why}: {self.advice}"
        )

    @property
    def advice(self) -> str:
        return (
            f"download {self.names[0]} ({self.size}, {self.licence}) from huggingface.co/{self.repository} "
            f"into a folder that {FOLDER} names, or give its path with --set reward.{self.setting}=PATH"
        )
