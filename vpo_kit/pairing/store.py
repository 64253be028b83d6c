"""A pair set on disk. It is also a Hugging Face `videofolder`: ``load_dataset("videofolder", data_dir=...)`` reads it.

    SET/  metadata.jsonl  dataset.yaml  videos/*.mp4  latents/*.safetensors

One line of ``metadata.jsonl`` is one `Pair`. Training reads the stored latents, never the lossy mp4.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vpo_kit import files, plain
from vpo_kit.config import parse_yaml
from vpo_kit.errors import DataError, first_line
from vpo_kit.pairing.segments import Range

SIZE = ("frames", "height", "width", "fps")
"""What the latents of a set depend on."""


class Scores(BaseModel):
    """What a labeller gave: one score for each segment and one for the clip; higher is better."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: list[float]
    second: list[float]
    first_clip: float
    second_clip: float


class Motion(BaseModel):
    """Mean change between frames of each segment (`video.motion`), for the veto and for `vpo pair inspect`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: list[float]
    second: list[float]


class Hashes(BaseModel):
    """Hexadecimal SHA-256 of a pair's three files, by member and not by file name: a table has fixed columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: str
    second: str
    latents: str | None = None


class Pair(BaseModel):
    """Two videos of one prompt. Labels are +1 (first is better), -1 (second) or 0 (tie); None before labelling.

    Imported pairs are other people's: their members may differ in length and rate, and each is judged as a whole.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    prompt: str
    first_file_name: str
    second_file_name: str
    latents: str | None = Field(None, description="None for imported pairs, which are encoded when training needs them")
    strategy: Literal["independent", "guided", "local", "real", "imported"]
    eta: float | None = Field(None, description="noise level at which what was made really started")
    seeds: tuple[int, int] | None = Field(None, description="None for imported pairs")
    source: str | None = Field(None, description="the real clip and where its window starts in seconds")
    fps: float = Field(gt=0)
    frames: int = Field(ge=1)
    second_fps: float | None = Field(None, gt=0, description="of the second member, where it is another; imported only")
    second_frames: int | None = Field(None, ge=1, description="as second_fps")
    segments: list[Range]
    labels: list[Literal[-1, 0, 1]] | None = None
    label: Literal[-1, 0, 1] | None = None
    scores: Scores | None = None
    motion: Motion | None = None
    labeller: str | None = None
    judged: dict[str, Literal[-1, 0, 1] | None] | None = Field(None, description="people's verdicts by dimension")
    shares: dict[str, float | None] | None = Field(None, description="of votes for the first, by dimension, 0 to 1")
    models: tuple[str, str] | None = Field(None, description="what made the members; imported only")
    row: int | None = Field(None, description="in the source that it was imported from, from 1 on")
    sha256: Hashes

    @field_validator("first_file_name", "second_file_name", "latents")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        if value is None:
            return None
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or "\\" in value or "\0" in value:
            raise ValueError("a path must stay inside the set")
        return value

    @model_validator(mode="after")
    def _lengths(self) -> Pair:
        last = 0
        for start, end in self.segments:
            if not last == start < end:
                raise ValueError(f"segments {self.segments} do not follow each other")
            last = end
        if last != self.frames:
            raise ValueError(f"segments end at frame {last}, the clip at {self.frames}")
        if self.labels is not None and len(self.labels) != len(self.segments):
            raise ValueError(f"{len(self.labels)} labels for {len(self.segments)} segments")
        if self.strategy == "imported":
            if len(self.segments) > 1:
                raise ValueError("an imported pair is judged as a whole and has one segment")
        elif self.latents is None or self.sha256.latents is None or self.seeds is None:
            raise ValueError("only imported pairs may have no latents and no seeds")
        return self

    @property
    def has_clip(self) -> bool:
        """Whether there is one clip that it stands for: the winner, or the real one that both members of a guided pair
        came from, whose latent lies beside theirs.
        """
        return bool(self.label) or self.strategy == "guided"

    @property
    def videos(self) -> tuple[Member, Member]:
        """Both members, with their segments in frames of their own."""
        fps, frames = self.second_fps or self.fps, self.second_frames or self.frames
        whole: list[Range] = [(0, frames)] if self.strategy == "imported" else self.segments
        return (
            Member(self.first_file_name, self.fps, self.frames, self.segments),
            Member(self.second_file_name, fps, frames, whole),
        )

    @property
    def shown(self) -> list[Range]:
        """The segments in frames of the first member, as players show them: an imported pair's ends with its longer
        member.
        """
        if self.strategy != "imported":
            return self.segments
        return [(0, max(self.frames, round(self.videos[1].seconds * self.fps)))]

    @property
    def files(self) -> tuple[str, ...]:
        """Both videos and, where the set has them, the latents."""
        return tuple(name for name in (self.first_file_name, self.second_file_name, self.latents) if name is not None)

    @property
    def hashed(self) -> dict[str, str]:
        """SHA-256 by file name."""
        found = {self.first_file_name: self.sha256.first, self.second_file_name: self.sha256.second}
        if self.latents is not None and self.sha256.latents is not None:
            found[self.latents] = self.sha256.latents
        return found


@dataclass(frozen=True)
class Member:
    """One video of a pair."""

    file_name: str
    fps: float
    frames: int
    segments: list[Range]

    @property
    def seconds(self) -> float:
        return self.frames / self.fps


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
