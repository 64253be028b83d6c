"""The pairs on which a judge and people disagree most, as a page that opens from disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np

from vpo_kit.judged.sets import JudgedPair, JudgedSet

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


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Where judges and people disagree</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }
figure { display: inline-block; width: 47%; margin: 0 1% 1em 0; } video { width: 100%; background: #000; }
article { border-top: 1px solid #ccc; padding-top: .5em; } .people { font-weight: 600; }
</style>
<h1>Where judges and people disagree most</h1>
{% for section in sections %}
<h2>{{ section.found.name }}, {{ section.dimension }}: {{ section.judge }}</h2>
{% for one in section.rows %}
<article><p>{{ section.found.clips[one.pair.first].prompt or "no prompt" }}
{% if one.pair.row %}(row {{ one.pair.row }}){% endif %}</p>
{% for place, better in ((one.pair.first, 1), (one.pair.second, -1)) %}
<figure><video src="{{ address(section.found.clips[place].path) }}" controls loop muted preload="none"></video>
<figcaption>{{ "%.3g"|format(section.scores[place]) }}
{% if one.pair.verdicts[section.dimension] == better %}<span class="people">people's choice</span>
{% else %}the judge's choice{% endif %}
{% if section.found.clips[place].model %}, {{ section.found.clips[place].model }}{% endif %}</figcaption></figure>
{% endfor %}</article>
{% else %}<p>No pair.</p>
{% endfor %}{% endfor %}
</html>
"""


def page(sections: Sequence[DisagreementSection], place: Path) -> str:
    """The page's text, for a file at `place`: videos are named relative to it."""
    folder = place.parent.resolve()

    def address(video: Path) -> str:
        return quote(Path(os.path.relpath(video, folder)).as_posix())

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    shown: Mapping[str, object] = {"sections": sections, "address": address}
    return environment.from_string(_PAGE).render(shown)
