"""A pair set on disk. It is also a Hugging Face `videofolder`: ``load_dataset("videofolder", data_dir=...)`` reads it.

    SET/  metadata.jsonl  dataset.yaml  videos/*.mp4  latents/*.safetensors

One line of ``metadata.jsonl`` is one `Pair`. Training reads the stored latents, never the lossy mp4.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vpo_kit import files, plain
from vpo_kit.config import parse_yaml
from vpo_kit.errors import DataError, first_line
from vpo_kit.pairing.records import Hashes, Pair

SIZE = ("frames", "height", "width", "fps")
"""What the latents of a set depend on."""


@dataclass(frozen=True)
class PairSet:
    """A finished set: its facts (``dataset.yaml``), its readable pairs, and what is wrong with the others."""

    path: Path
    facts: dict[str, Any]
    pairs: list[Pair]
    broken: list[str]

    @property
    def model(self) -> str:
        return str(self.facts.get("model", "an unknown model"))


def sampling(path: Path) -> dict[str, Any]:
    """Size and rate of a set's videos, as its ``dataset.yaml`` has them; nothing for imported and older sets.

    Raises `DataError` for a set that cannot be read.
    """
    found = _facts(path).get("sampling")
    return {name: found[name] for name in SIZE if name in found} if isinstance(found, dict) else {}


def read(path: Path) -> PairSet:
    """Read a set; a line that is no pair is named in `broken`, the rest stays usable. Raises `DataError`."""
    lines = plain.lines(_text(path / "metadata.jsonl", path))
    facts = _facts(path)
    if facts.get("kind") == "rated":
        raise DataError(f"{path} holds ratings: vpo pair import {path} --least-difference X --output SET forms pairs")
    pairs: list[Pair] = []
    broken: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            pairs.append(Pair.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            broken.append(
                f"metadata.jsonl, line {number} ({_name(line)}): {f'{where}: ' if where else ''}{first['msg']}"
            )
    return PairSet(path, facts, pairs, broken)


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = parse_yaml(_text(path / "dataset.yaml", path))
    except ValueError as error:
        raise DataError(f"{path / 'dataset.yaml'} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(facts, dict):
        raise DataError(f"{path / 'dataset.yaml'} is not a mapping of names to values")
    return facts


def write(path: Path, facts: Mapping[str, Any], pairs: Iterable[Pair]) -> None:
    """Write ``dataset.yaml``, then ``metadata.jsonl``, each whole or not at all. Raises `OutputError`."""
    files.write(path / "dataset.yaml", yaml.safe_dump(dict(facts), sort_keys=False, allow_unicode=True))
    files.write(path / "metadata.jsonl", "".join(f"{pair.model_dump_json()}\n" for pair in pairs))


def write_latents(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write ``first``, ``second`` and, for guided pairs, ``source``, each ``[C, T, h, w]``; for local ones the ``mask``
    ``[T, h, w]`` of what differs. Raises `OutputError`.
    """
    files.write_tensors(path, {name: value.float() for name, value in tensors.items()})


def read_latents(path: Path) -> dict[str, Tensor]:
    """The latents of one pair by name. Raises `DataError`."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dictionary)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from error


def hashes(path: Path, names: Sequence[str]) -> Hashes:
    """The hashes of a pair's first video, second video and latents."""
    first, second, latents = (files.sha256(path / name) for name in names)
    return Hashes(first=first, second=second, latents=latents)


def renamed(pair: Pair, new: str) -> Pair:
    """The pair under another id, with its files named after it; the files themselves are the caller's to move.

    The videos of imported pairs are named by their content, and several pairs may share one: they keep their names.
    """
    if pair.strategy == "imported":
        return pair.model_copy(update={"id": new})
    videos = {f"{who}_file_name": f"videos/{new}-{who}.mp4" for who in ("first", "second")}
    return pair.model_copy(update={"id": new, "latents": f"latents/{new}.safetensors", **videos})


def latent_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the latents of one pair by name, from the file's header alone. Raises `DataError`."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from error


def problem(
    path: Path, pair: Pair, names: Sequence[str] | None = None, hashed: Callable[[Path], str] = files.sha256
) -> str | None:
    """What is wrong with a pair's files (or with those of `names`): missing, changed; None when nothing is. `hashed`
    gives a file's SHA-256.
    """
    for name in names or pair.files:
        try:
            there = (path / name).is_file()
        except OSError:  # no disk takes a name so long
            there = False
        if not there:
            return f"{pair.id}: {name[:200]} is missing"
        if hashed(path / name) != pair.hashed[name]:
            return f"{pair.id}: {name} has changed since the set was made (its SHA-256 differs)"
    return None


def _text(path: Path, folder: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        unfinished = (folder / ".parts").is_dir()
        hint = "it is not finished: run the same vpo pair again" if unfinished else "give a folder made by vpo pair"
        raise DataError(f"{folder} is no pair set ({path.name} cannot be read): {hint}") from error


def _name(line: str) -> str:
    try:
        return str(json.loads(line)["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "no id"
