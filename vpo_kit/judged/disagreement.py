"""The pairs on which a judge and people disagree most, as a page that opens from disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from vpo_kit.judged.sets import JudgedPair, JudgedSet
from vpo_kit.pages import templates
from vpo_kit.pages.templates import Head

SHOWN = 20
"""Pairs of each judge and dimension."""


@dataclass(frozen=True)
class Disagreement:
    """A pair that people decided one way and a judge the other; `margin` is in standard deviations of its margins."""

    pair: JudgedPair
    margin: float


def strongest(found: JudgedSet, scores: Sequence[float], dimension: str, count: int = SHOWN) -> list[Disagreement]:
    """At most `count` pairs, the judge's largest margins first; clips without a score (NaN) are in none."""
    decided = [pair for pair in found.pairs if pair.verdicts.get(dimension)]
    margins = np.array([scores[pair.first] - scores[pair.second] for pair in decided], float)
    known = margins[np.isfinite(margins)]
    spread = float(known.std()) if len(known) else 0.0
    wrong = [
        Disagreement(pair, float(margin) / (spread or 1.0))
        for pair, margin in zip(decided, margins, strict=True)
        if np.isfinite(margin) and margin * pair.verdicts[dimension] < 0
    ]
    return sorted(wrong, key=lambda one: -abs(one.margin))[:count]


@dataclass(frozen=True)
class DisagreementSection:
    """What one judge and people disagree on, in one set and dimension."""

    found: JudgedSet
    judge: str
    dimension: str
    scores: Sequence[float]

    @property
    def rows(self) -> list[Disagreement]:
        return strongest(self.found, self.scores, self.dimension)


def page(sections: Sequence[DisagreementSection], place: Path) -> str:
    """The page's text, for a file at `place`: videos are named relative to it."""
    folder = place.parent.resolve()

    def address(video: Path) -> str:
        return quote(Path(os.path.relpath(video, folder)).as_posix())

    shown = [_section(section, address) for section in sections]
    count = sum(len(section["rows"]) for section in shown)
    return (
        templates.environment("vpo_kit.judged")
        .get_template("disagreement.html.j2")
        .render(
            title="Where judges and people disagree most",
            head=Head(said=f"{count} pairs that people decided one way and a judge the other, the surest first."),
            data={"sections": shown},
        )
    )


def _section(section: DisagreementSection, address: Callable[[Path], str]) -> dict[str, Any]:
    """One set, dimension and judge as the page's script takes it; `chosen` is the place of the people's choice."""

    def film(place: int, chosen: bool) -> dict[str, str]:
        clip = section.found.clips[place]
        told = f"{section.scores[place]:.3g}, {'people' if chosen else 'the judge'}'s choice"
        return {"name": f"{told}, {clip.model}" if clip.model else told, "address": address(clip.path)}

    rows = []
    for one in section.rows:
        first = one.pair.verdicts[section.dimension] == 1
        prompt = section.found.clips[one.pair.first].prompt or "no prompt"
        films = [film(one.pair.first, first), film(one.pair.second, not first)]
        title = f"{prompt} (row {one.pair.row})" if one.pair.row else prompt
        rows.append({"id": str(one.pair.row or ""), "title": title, "films": films, "chosen": 0 if first else 1})
    return {"name": f"{section.found.name}, {section.dimension}: {section.judge}", "rows": rows}
