"""Scores of the clips of a set, by content: what has been scored once is not scored again."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vpo_kit import files
from vpo_kit.errors import DataError
from vpo_kit.judged.sets import JudgedClip
from vpo_kit.rewards.base import Reward
from vpo_kit.video import motion, read_video

MOTION = "motion"


@dataclass(frozen=True)
class JudgedScores:
    """What is known of one clip: each judge's score, that of its first frame held still, and seconds; and how much it
    moves.
    """

    scores: Mapping[str, float]
    frozen: Mapping[str, float]
    seconds: Mapping[str, float]
    motion: float


class Cache:
    """A file of json lines, one for each clip, prompt and judge; what a kill has cut short is scored again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[str, str], dict[str, float]] = {}
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        for line in lines:
            try:
                row = json.loads(line)
                self._known[row["clip"], row["judge"]] = row["found"]
            except (ValueError, KeyError, TypeError):
                continue

    @property
    def judges(self) -> list[str]:
        """All judges that have scored something, each with what tells its settings."""
        return list(dict.fromkeys(judge for _, judge in self._known))

    def get(self, clip: str, judge: str) -> dict[str, float] | None:
        return self._known.get((clip, judge))

    def put(self, clip: str, judge: str, found: dict[str, float]) -> None:
        """Raises `OutputError`."""
        files.append(self._path, json.dumps({"clip": clip, "judge": judge, "found": found}))
        self._known[clip, judge] = found


def score(
    clips: Sequence[JudgedClip], judges: Mapping[str, Reward], cache: Cache, on_done: Callable[[int], None]
) -> tuple[list[JudgedScores | None], list[str]]:
    """Every clip by every judge, named with its settings, one clip in memory at a time; None and a line with the reason
    for a clip that cannot be read or judged.
    """
    found: list[JudgedScores | None] = []
    wrong: list[str] = []
    for clip in clips:
        try:
            found.append(_one(clip, judges, cache))
        except DataError as error:
            found.append(None)
            wrong.append(str(error) if clip.path.name in str(error) else f"{clip.path.name}: {error}")
        on_done(1)
    return found, wrong


def key_of(clip: JudgedClip) -> str:
    """What a clip and its prompt are called in a `Cache`. Raises `DataError` for a file that cannot be read."""
    try:
        digest = files.sha256(clip.path)
    except OSError as error:
        raise DataError(f"{clip.path.name} cannot be read: {error.strerror or error}") from error
    return hashlib.sha256(f"{digest}\0{clip.prompt}".encode()).hexdigest()


@torch.no_grad()
def _one(clip: JudgedClip, judges: Mapping[str, Reward], cache: Cache) -> JudgedScores:
    key = key_of(clip)
    missing = [name for name in judges if cache.get(key, name) is None]
    if missing or cache.get(key, MOTION) is None:
        footage = read_video(clip.path)
        video = footage.frames[None]
        if cache.get(key, MOTION) is None:
            moved = float(motion(video)) if video.shape[1] > 1 else 0.0
            cache.put(key, MOTION, {"score": moved})
        for name in missing:
            began = time.perf_counter()
            value = float(judges[name](video, [clip.prompt], fps=footage.fps).score)
            seconds = time.perf_counter() - began
            still = float(judges[name](video[:, :1].expand_as(video), [clip.prompt], fps=footage.fps).score)
            if not math.isfinite(value):
                raise DataError(f"reward {name!r} is not finite")
            cache.put(key, name, {"score": value, "frozen": still, "seconds": round(seconds, 3)})
    rows = {name: cache.get(key, name) or {} for name in judges}
    moved = (cache.get(key, MOTION) or {})["score"]
    columns = [{name: row[column] for name, row in rows.items()} for column in ("score", "frozen", "seconds")]
    return JudgedScores(columns[0], columns[1], columns[2], moved)
