"""The page of a pair set: both videos of each pair in step, the labelled segments under them. Opens from disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2

from vpo_kit.pairing.inspect import Summary, margins
from vpo_kit.pairing.set_tables import grids
from vpo_kit.pairing.store import Pair, PairSet

KINDS = {1: "first", -1: "second", 0: "tie", None: "none"}
VERDICTS = {1: "first is better", -1: "second is better", 0: "tie", None: "no label"}


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One piece of the timeline; times in seconds."""

    start: float
    end: float
    share: float
    """The segment's share of the clip's length, in percent."""
    kind: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """One pair as the page shows it; `videos` are addresses relative to the page."""

    pair: Pair
    videos: tuple[str, str]
    seconds: float
    segments: Sequence[Segment]
    note: str
    margin: float
    decided: int


def render(found: PairSet, summary: Summary, page: Path, limit: int) -> str:
    """The whole page for the place `page`; prompts and all other text are escaped.

    Of a set of more than `limit` pairs it shows that many, evenly spread over the set.
    """
    count = min(limit, len(found.pairs))
    shown = [found.pairs[i * len(found.pairs) // count] for i in range(count)]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("vpo_kit.pairing", "."), autoescape=True)
    return environment.get_template("page.html.j2").render(
        title=f"{found.path.resolve().name}: {len(found.pairs)} pairs",
        grids=grids(found, summary),
        cards=[_card(found.path, pair, page) for pair in shown],
        total=len(found.pairs),
    )


def _card(path: Path, pair: Pair, page: Path) -> Card:
    scores = (pair.scores.first_clip, pair.scores.second_clip) if pair.scores else None
    found = margins(pair)
    return Card(
        pair=pair,
        videos=(_address(path / pair.first_file_name, page), _address(path / pair.second_file_name, page)),
        seconds=pair.shown[-1][1] / pair.fps,
        segments=[_segment(pair, i) for i in range(len(pair.segments))],
        note=f"whole clip: {_verdict(pair.label, scores)}",
        margin=sum(found) / len(found) if found else 0.0,
        decided=sum(label != 0 for label in pair.labels or ()),
    )


def _segment(pair: Pair, index: int) -> Segment:
    start, end = pair.shown[index]
    label = pair.labels[index] if pair.labels else None
    scores = None
    if pair.scores and index < min(len(pair.scores.first), len(pair.scores.second)):
        scores = pair.scores.first[index], pair.scores.second[index]
    note = f"{start / pair.fps:.2f} to {end / pair.fps:.2f} s: {_verdict(label, scores)}"
    return Segment(
        start=start / pair.fps,
        end=end / pair.fps,
        share=100 * (end - start) / pair.shown[-1][1],
        kind=KINDS[label],
        note=note,
    )


def _verdict(label: int | None, scores: tuple[float, float] | None) -> str:
    """The verdict in words: ``second is better (first -0.12, second 0.34)``."""
    return VERDICTS[label] + (f" (first {scores[0]:.3g}, second {scores[1]:.3g})" if scores else "")


def _address(video: Path, page: Path) -> str:
    """A video's address relative to the page's folder; its folder is resolved first, so that `..` steps are right."""
    place = video.parent.resolve() / video.name
    return quote(Path(os.path.relpath(place, page.parent.resolve())).as_posix())
