"""The model section of commands that train nothing, over that of the run whose LoRA they take. No weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from vpo_kit import config, formats
from vpo_kit.config import Model, Run, Section

Kind = TypeVar("Kind", bound=Section)
SHARED = set(Model.model_fields)


def run_of(path: Path | None) -> Run | None:
    """What a run was trained with; None where `path` is no run folder, as a LoRA alone is none.

    Raises `ConfigError` for a run whose settings cannot be read.
    """
    file = path / "config.yaml" if path else None
    if file is None or not file.is_file():
        return None
    return config.validate(Run, formats.recipe(config.read_file(file), file), f"{file}: ")


def of_run(path: Path | None) -> dict[str, Any]:
    """The model section of a run folder, as plain values; nothing where `path` is none. Raises `ConfigError`."""
    run = run_of(path)
    return run.model_dump(mode="json", include=SHARED, exclude_defaults=True) if run else {}


def read(kind: type[Kind], given: Mapping[str, Any], file: Path | None = None, run: Path | None = None) -> Kind:
    """The settings `given`, over those of `file`, over the model section of the run folder `run`.

    Of a recipe for training in `file`, what `kind` has no place for is left out. Where another model is named than the
    run's, its revision and variant are not taken. Raises `ConfigError`.
    """
    found = formats.recipe(config.read_file(file), file) if file else {}
    known = set(kind.model_fields)
    own = {key: value for key, value in found.items() if key in known or key not in Run.model_fields}
    values, below = config.merge(own, given), of_run(run)
    if values.get("model", below.get("model")) != below.get("model"):
        below.pop("revision", None)
        below.pop("variant", None)
    return config.validate(kind, config.merge(below, values))
