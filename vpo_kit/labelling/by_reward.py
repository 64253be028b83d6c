"""From videos to labels: score every segment of both members, then first, second or tie. Resumable and shared.

All labellers read the mp4s of the set, so a reward, a model and a person judge the same pictures.
Legend: ``S`` segments; video ``[F, 3, H, W]``.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vpo_kit import files
from vpo_kit.errors import DataError
from vpo_kit.pairing import store
from vpo_kit.pairing.segments import Range, cut, default_seconds, vote
from vpo_kit.pairing.settings import Labelling
from vpo_kit.pairing.store import Motion, Pair, PairSet, Scores
from vpo_kit.processes import Processes
from vpo_kit.rewards.base import Mixture
from vpo_kit.video import motion, read_video


class Scorer(Protocol):
    """Scores both members of a pair, segment by segment; `name` goes into the set."""

    name: str

    def __call__(self, first: Tensor, second: Tensor, pair: Pair) -> Scores: ...


class RewardScorer:
    """Any reward or mixture, on the mixture's fixed scales."""

    def __init__(self, name: str, reward: Mixture) -> None:
        self.name = f"reward:{name}"
        self._reward = reward

    @torch.no_grad()
    def __call__(self, first: Tensor, second: Tensor, pair: Pair) -> Scores:
        if pair.strategy == "imported":  # its members may have nothing in common: each is judged whole
            one, other = (
                float(self._reward.fixed(video[None], [pair.prompt], fps=member.fps).score)
                for video, member in zip((first, second), pair.videos, strict=True)
            )
            return Scores(first=[one], second=[other], first_clip=one, second_clip=other)
        found = self._reward.fixed(
            torch.stack([first, second]), [pair.prompt] * 2, fps=pair.fps, segments=pair.segments
        )
        assert found.segments is not None
        parts, clips = found.segments.tolist(), found.score.tolist()
        return Scores(first=parts[0], second=parts[1], first_clip=clips[0], second_clip=clips[1])


@dataclass(frozen=True)
class Margins:
    """Differences up to these are ties, for a segment and for the whole clip."""

    segment: float
    clip: float


def label(
    found: PairSet,
    scorer: Scorer,
    settings: Labelling,
    processes: Processes,
    tick: Callable[[], None],
    facts: Mapping[str, Any],
) -> PairSet:
    """Score what is not scored yet, then write the labels of the whole set; its videos are not touched.

    Raises `DataError` when a video does not decode or a score is not finite: nothing of the old labels is lost then.
    """
    if found.broken:
        raise DataError(f"{found.path}: {found.broken[0]}: mend or delete that line first, labelling writes all anew")
    work = found.path / ".labels"
    stamp = {"labeller": scorer.name, "settings": settings.model_dump(mode="json")}
    if processes.is_main:
        _start(work, stamp)
    processes.wait()
    pairs = [recut(pair, settings.segment_seconds) for pair in found.pairs]
    for pair in processes.share(pairs):
        if not (work / f"{pair.id}.json").is_file():
            files.write(work / f"{pair.id}.json", json.dumps(_score(found.path, pair, scorer)))
        tick()
    processes.wait()
    if processes.is_main:
        parts = [json.loads((work / f"{pair.id}.json").read_text(encoding="utf-8")) for pair in pairs]
        scored = [pair.model_copy(update=_parse(part)) for pair, part in zip(pairs, parts, strict=True)]
        labelled, margins = decide(scored, settings)
        named = [pair.model_copy(update={"labeller": scorer.name}) for pair in labelled]
        settled = {**settings.model_dump(mode="json"), "tie_margin": margins.segment, "clip_margin": margins.clip}
        store.write(found.path, {**found.facts, "labels": {"labeller": scorer.name, **facts, **settled}}, named)
        shutil.rmtree(work)
    processes.wait()
    return store.read(found.path)


def recut(pair: Pair, seconds: float | None) -> Pair:
    """The pair with segments of `seconds` (default: those of `default_seconds`) and without labels; an imported one
    stays whole.
    """
    if pair.strategy == "imported":
        return pair.model_copy(update={"labels": None, "label": None, "scores": None, "motion": None})
    parts = cut(pair.frames, pair.fps, seconds or default_seconds(pair.frames, pair.fps))
    return pair.model_copy(update={"segments": parts, "labels": None, "label": None, "scores": None, "motion": None})


def decide(pairs: Sequence[Pair], settings: Labelling) -> tuple[list[Pair], Margins]:
    """Labels for scored pairs, and the margins that were given or calibrated on all of them."""
    margins = Margins(_margin([_differences(pair) for pair in pairs], settings), _margin([_clip(pairs)], settings))
    return [_decided(pair, settings, margins) for pair in pairs], margins


def _decided(pair: Pair, settings: Labelling, margins: Margins) -> Pair:
    assert pair.motion is not None
    labels = [_sign(value, margins.segment) for value in _differences(pair)]
    veto = settings.motion_veto
    if veto is None:
        veto = 0.5 if pair.strategy == "independent" else 0.0
    for i, value in enumerate(labels):
        winner, loser = pair.motion.first[i], pair.motion.second[i]
        if value < 0:
            winner, loser = loser, winner
        if value and winner < veto * loser:
            labels[i] = 0
    clip = vote(labels) if settings.clip_label == "vote" else _sign(_clip([pair])[0], margins.clip)
    return pair.model_copy(update={"labels": labels, "label": clip})


def _margin(differences: Sequence[Sequence[float]], settings: Labelling) -> float:
    if settings.tie_margin is not None:
        return settings.tie_margin
    sizes = torch.tensor([abs(value) for row in differences for value in row], dtype=torch.float64)
    return float(sizes.quantile(settings.tie_share)) if settings.tie_share else 0.0


def _differences(pair: Pair) -> list[float]:
    assert pair.scores is not None
    return [a - b for a, b in zip(pair.scores.first, pair.scores.second, strict=True)]


def _clip(pairs: Sequence[Pair]) -> list[float]:
    return [pair.scores.first_clip - pair.scores.second_clip for pair in pairs if pair.scores is not None]


def _sign(value: float, margin: float) -> int:
    return 0 if abs(value) <= margin else 1 if value > 0 else -1


def _start(work: Path, stamp: dict[str, Any]) -> None:
    """Take up what a killed run of the same labeller has scored, and drop anyone else's."""
    settings = work / "settings.json"
    text = json.dumps(stamp, sort_keys=True)
    if not settings.is_file() or settings.read_text(encoding="utf-8") != text:
        shutil.rmtree(work, ignore_errors=True)
        files.write(settings, text)


def _score(folder: Path, pair: Pair, scorer: Scorer) -> dict[str, Any]:
    first, second = (read_video(folder / name).frames for name in (pair.first_file_name, pair.second_file_name))
    for member, video in zip(pair.videos, (first, second), strict=True):
        if len(video) != member.frames:
            raise DataError(f"{folder / member.file_name} has {len(video)} frames, not {member.frames}")
    scores = scorer(first, second, pair)
    values = [*scores.first, *scores.second, scores.first_clip, scores.second_clip]
    if not all(math.isfinite(value) for value in values):
        raise DataError(f"{scorer.name} gave pair {pair.id} a score that is not finite: no label was changed")
    members = zip(("first", "second"), (first, second), pair.videos, strict=True)
    moved = {who: _motion(video, member.segments) for who, video, member in members}
    return {"scores": scores.model_dump(), "motion": moved}


def _motion(video: Tensor, segments: Sequence[Range]) -> list[float]:
    return [float(motion(video[None, start:end])) for start, end in segments]


def _parse(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"scores": Scores.model_validate(part["scores"]), "motion": Motion.model_validate(part["motion"])}
