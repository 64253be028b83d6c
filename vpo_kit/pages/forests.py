"""Changes with their intervals under each other on one axis, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True, kw_only=True)
class Change:
    """One line of `forest`: a change with its interval, in units that all lines share; `kind` is its verdict."""

    name: str
    low: float
    middle: float
    high: float
    kind: str
    figures: str


MARKS = {"better": "▲", "worse": "▼", "changed": "◆", "unclear": "●"}


def forest(changes: Sequence[Change]) -> Markup:
    """Changes under each other on one axis with its zero; right is better. Nothing without changes."""
    if not changes:
        return Markup()
    reach = max(max(abs(one.low), abs(one.middle), abs(one.high)) for one in changes) * 1.08 or 1.0
    line = Markup(
        '<li><span>{name}</span><span class="track {kind}" aria-hidden="true"><i class="zero" style="left:50%"></i>'
        '<i class="span" style="left:{left}%;width:{width}%"></i><i class="dot" style="left:{at}%">{mark}</i></span>'
        '<span class="figures">{figures}, <b class="{kind}">{kind}</b></span></li>'
    )

    def place(value: float) -> float:
        return round(50 + 50 * value / reach, 2)

    lines = [
        line.format(
            name=one.name, kind=one.kind, left=place(one.low), width=round(place(one.high) - place(one.low), 2),
            at=place(one.middle), mark=MARKS[one.kind], figures=one.figures,
        )
        for one in changes
    ]  # fmt: skip
    return Markup('<ul class="forest">{}</ul>').format(Markup("").join(lines))
