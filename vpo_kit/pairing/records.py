"""What a pair set says of one pair: a line of its ``metadata.jsonl``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vpo_kit.pairing.segments import Range


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
