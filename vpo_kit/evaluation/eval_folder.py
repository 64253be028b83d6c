"""The folder of `vpo eval`: what may be taken up in it, and what belongs to something else.

OUTPUT/  settings.json  results.json  results.md  report.html
         videos/NAME/   *.mp4, metrics.json, source.json, and .parts/ until all batches are done
         features/      what clips are to diversity and distances, by kind and model
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpo_kit import files
from vpo_kit.errors import ConfigError, DataError, OutputError
from vpo_kit.evaluation.samples import Results, SamplePlan, finished

FREE = {"versions", "metrics"}
"""Settings that may differ when an evaluation is taken up; its metrics stay those that it was begun with."""
GROWING = ("prompts", "videos_per_prompt")
"""Settings of which there may be more then: videos that are there stay."""


@dataclass(frozen=True)
class EvalFolder:
    path: Path

    def begun(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """What is on disk of an evaluation with these settings, or None where there is nothing yet.

        Raises `OutputError` for a folder of other things, `ConfigError` for an evaluation with other settings.
        """
        listing = self.path / "settings.json"
        if not listing.is_file():
            if not files.bare(self.path):
                raise OutputError(f"{self.path} is not empty and holds no evaluation: give another --output")
            return None
        old = _read(listing)
        free = FREE | set(GROWING)
        changed = [key for key in settings if key not in free and old.get(key) != _plain(settings[key])]
        if changed:
            raise ConfigError(
                f"{self.path} was begun with another {' and '.join(changed)}: give another --output, or the same"
            )
        gone = [prompt for prompt in old.get("prompts", ()) if prompt not in settings["prompts"]]
        if gone or old.get("videos_per_prompt", 0) > settings.get("videos_per_prompt", 0):
            what = f"prompts that are left out now, {gone[0]!r} for one" if gone else "more videos_per_prompt"
            raise ConfigError(
                f"{self.path} was begun with {what}: more may be added, none taken away: give another --output"
            )
        return old

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Write what this evaluation is, before its first video. Raises `OutputError`."""
        files.write(self.path / "settings.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")

    def videos(self, name: str) -> Path:
        return self.path / "videos" / name

    def check_source(self, name: str, lora: Sequence[Path]) -> None:
        """Raises `ConfigError` where the videos under this name were made with another LoRA."""
        listing = self.videos(name) / "source.json"
        if listing.is_file() and _read(listing) != self._source(lora):
            raise ConfigError(f"the videos of {name!r} in {self.path} come from another LoRA: give another --output")

    def claim(self, name: str, lora: Sequence[Path]) -> None:
        """Write which LoRA, by its files, the videos under this name come from. Raises `OutputError`."""
        files.write(self.videos(name) / "source.json", json.dumps(self._source(lora)) + "\n")

    def finished(self, name: str, plan: SamplePlan) -> Results | None:
        """The evaluation under this name, where it is of this plan and whole."""
        folder = self.videos(name)
        found = finished(folder, plan)
        return found if found is not None and all((folder / file).is_file() for file in found.files) else None

    @staticmethod
    def _source(lora: Sequence[Path]) -> dict[str, str | None]:
        return {"lora_sha256": " ".join(map(files.sha256, lora)) or None}


def _plain(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    kinds = {"prompts": list, "videos_per_prompt": int}
    if not isinstance(found, dict) or not all(isinstance(found[k], kind) for k, kind in kinds.items() if k in found):
        raise DataError(f"{path} is not what vpo eval writes: give another --output")
    return found
