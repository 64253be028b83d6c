"""Labels from scores: score every segment of both members, then first, second or tie. Resumable and shared.

All labellers read the mp4s of the set, so a reward, a model and a person judge the same pictures.
Legend: ``S`` segments; video ``[F, 3, H, W]``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from vpo_kit.errors import DataError
from vpo_kit.labelling.answers import SCORES, Store, labelling
from vpo_kit.labelling.base import Labeller, Surroundings, all_read, recut
from vpo_kit.labelling.comparing import Comparer, Match, pair_of
from vpo_kit.labelling.keys import score_key
from vpo_kit.labelling.older import LONG_S, opened
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Motion, Pair, Scores
from vpo_kit.pairing.segments import Range, vote
from vpo_kit.pairing.settings import Cutting, Labelling
from vpo_kit.pairing.store import PairSet
from vpo_kit.processes import Processes
from vpo_kit.video import motion, read_video


class Scorer(Protocol):
    """What scores both members of a pair, segment by segment; `name` goes into the set."""

    @property
    def name(self) -> str: ...

    def __call__(self, first: Tensor, second: Tensor, pair: Pair) -> Scores: ...


class ByScores(Labeller):
    """A labeller that scores both members of a pair, from which labels, resume and the set's facts follow.

    One that only says which is better gives 1 to the better one and 0 to the other, and has a `Config` in which
    `tie_margin` and `motion_veto` are 0.
    """

    Config: ClassVar[type[Cutting]] = Labelling

    @property
    @abstractmethod
    def name(self) -> str:
        """Whose labels these are, as the set says it."""

    @abstractmethod
    def scorer(self, device: torch.device) -> Callable[[Tensor, Tensor, Pair], Scores]:
        """What scores a pair: of both videos ``[F, 3, H, W]`` in [0, 1], each of ``pair.segments`` and the clip. They
        are where they were decoded: what has weights on `device` moves them there.
        """

    def comparer(self, device: torch.device) -> Comparer:
        return ScoreComparer(self.scorer(device), self.config)

    def facts(self) -> dict[str, Any]:
        """More about the labels, for ``dataset.yaml``."""
        return {}

    def label(self, found: PairSet, around: Surroundings) -> PairSet:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        scorer, processes = Named(self.name, self.scorer(device)), around.processes
        with around.bar("labels", len(processes.share(found.pairs))) as tick:
            done = label(found, scorer, self.config, processes, lambda: tick(1), self.facts(), around.say)
        for line in summary(done):
            around.say(line)
        return done


class ScoreComparer(Comparer):
    """Two clips at hand by the scores of both, with the labels' own rules; without a set there is nothing to calibrate
    a margin on, so a margin that is not given is 0.
    """

    def __init__(self, score: Callable[[Tensor, Tensor, Pair], Scores], settings: Labelling) -> None:
        self._score = score
        self._settings = settings.model_copy(update={"tie_margin": settings.tie_margin or 0.0})

    def compare(self, matches: Sequence[Match]) -> list[int | None]:
        return [self._label(match) for match in matches]

    def _label(self, match: Match) -> int | None:
        pair = pair_of(len(match.first), match.fps, match.prompt, self._settings.segment_seconds)
        moved = [_motion(video, pair.segments) for video in (match.first, match.second)]
        scored = pair.model_copy(
            update={
                "scores": self._score(match.first, match.second, pair),
                "motion": Motion(first=moved[0], second=moved[1]),
            }
        )
        (labelled,), _ = decide([scored], self._settings)
        return labelled.label


@dataclass(frozen=True)
class Named:
    """A `Scorer` of a function."""

    name: str
    score: Callable[[Tensor, Tensor, Pair], Scores]

    def __call__(self, first: Tensor, second: Tensor, pair: Pair) -> Scores:
        return self.score(first, second, pair)


def summary(found: PairSet) -> list[str]:
    """How many pairs a set has, and how its labels fall, as one or two lines."""
    labels: list[int] = [value for pair in found.pairs for value in pair.labels or ()]
    skipped: Sequence[str] = found.facts.get("skipped", [])
    left_out = f", {len(skipped)} left out (dataset.yaml says why)" if skipped else ""
    lines = [f"{found.path}: {len(found.pairs)} pairs{left_out}"]
    if labels:
        facts: Mapping[str, Any] = found.facts.get("labels", {})
        counts = {name: labels.count(value) for name, value in (("first", 1), ("second", -1), ("tie", 0))}
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        lines.append(f"segments: {shown}   margin {facts.get('tie_margin', 0):.3g}")
    return lines


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
    say: Callable[[str], None] = lambda line: None,
) -> PairSet:
    """Score what is not scored yet, then write the labels of the whole set; its videos are not touched.

    Raises `DataError` when the set is empty, a video has changed or does not decode, or a score is not finite: nothing
    of the old labels is lost then; `OutputError` where another process labels the set.
    """
    all_read(found)
    if not found.pairs:
        raise DataError(f"{found.path} holds no pairs")
    pairs = [recut(pair, settings.segment_seconds) for pair in found.pairs]
    with labelling(found.path) if processes.is_main else nullcontext():
        if processes.is_main:
            with closing(opened(found.path, wait_s=LONG_S, say=say)) as answers:
                _start(answers, {"labeller": scorer.name, "settings": settings.model_dump(mode="json")})
        processes.wait()
        with closing(opened(found.path, wait_s=LONG_S)) as answers:
            known = {row.key for row in answers.rows(SCORES)}
            for pair in processes.share(pairs):
                if (key := score_key(pair)) not in known:
                    answers.add(SCORES, key, _score(found.path, pair, scorer))
                    known.add(key)
                tick()
            processes.wait()
            if processes.is_main:
                parts = {row.key: row.content for row in answers.rows(SCORES)}
                scored = [pair.model_copy(update=_parse(parts[score_key(pair)])) for pair in pairs]
                labelled, margins = decide(scored, settings)
                named = [pair.model_copy(update={"labeller": scorer.name}) for pair in labelled]
                settled = {"tie_margin": margins.segment, "clip_margin": margins.clip}
                about = {"labeller": scorer.name, **facts, **settings.model_dump(mode="json"), **settled}
                store.write(found.path, {**found.facts, "labels": about}, named)
                answers.forget(SCORES)  # asked for anew they are made anew: a reward may be another one by then
    processes.wait()
    return store.read(found.path)


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


def _start(answers: Store, stamp: dict[str, Any]) -> None:
    """Take up what a killed run of the same labeller has scored, and drop anyone else's."""
    with answers.writing():
        if answers.noted(SCORES, "stamp") != stamp:
            answers.forget(SCORES)
            answers.note(SCORES, "stamp", stamp)


def _score(folder: Path, pair: Pair, scorer: Scorer) -> dict[str, Any]:
    names = [pair.first_file_name, pair.second_file_name]
    if wrong := store.problem(folder, pair, names):  # a score is kept under the hash of what was to be judged
        raise DataError(wrong)
    first, second = (read_video(folder / name).frames for name in names)
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
