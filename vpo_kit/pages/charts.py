"""Curves as HTML with SVG: readable in light and dark, with their values at every point.

A picture is 300 wide, and its text is written for that: a page shows several beside each other, one on a narrow screen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

WIDTH, HEIGHT = 300, 170
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 8, 32
POINTS = 500
"""A longer series is thinned to about so many points, by the lowest and highest of each stretch."""
COLOURS = 6
SHAPES = ("●", "■", "▲", "◆", "▼", "★")
"""A series is told by shape or dashes too: not everyone sees the colours apart."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line or mark of a chart: points ``(x, y)``, in a colour and shape by its number `kind`. `spans` are, for a
    single point, its intervals in x and y.
    """

    name: str
    points: Sequence[tuple[float, float]]
    kind: int = 0
    spans: tuple[tuple[float, float], tuple[float, float]] | None = None
    notes: Sequence[str] = ()
    """What is said of each point beside its values."""


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high`, laid from pixel `start` to pixel `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self, count: int) -> list[float]:
        """About `count` round numbers between its ends."""
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * min((1, 2, 5, 10), key=lambda k: abs(math.log(power * k / rough)))
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def thinned(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the points that are drawn: all, or the ends with each stretch's lowest and highest, so that no
    spike is lost.
    """
    if len(points) <= POINTS:
        return list(range(len(points)))
    stretch = math.ceil(2 * len(points) / POINTS)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), stretch):
        part = range(start, min(start + stretch, len(points)))
        kept |= {min(part, key=lambda i: points[i][1]), max(part, key=lambda i: points[i][1])}
    return sorted(kept)


def chart(title: str, series: Sequence[Series], x: str = "step", y: str = "", cross: bool = False) -> Markup:
    """One picture of lines (of marks, where a series is a single point), with `x` and `y` in words. Nothing without
    points; `cross` draws the lines of zero.
    """
    shown = [one for one in map(_finite, series) if one.points]
    if not shown:
        return Markup()
    across = _axis([v for one in shown for v in _reach(one, 0)], LEFT, WIDTH - RIGHT, cross)
    up = _axis([v for one in shown for v in _reach(one, 1)], HEIGHT - BOTTOM, TOP, cross)
    parts = _frame(across, up, x, cross)
    points: list[tuple[float, float, str]] = []
    for one in shown:
        parts.append(_drawn(one, across, up))
        several = f"{one.name}: " if len(series) > 1 else ""
        for i in thinned(one.points):
            px, py = one.points[i]
            note = f" ({one.notes[i]})" if one.notes else ""
            points.append((across.at(px), up.at(py), f"{several}{x} {px:.6g}, {y or title} {py:.4g}{note}"))
    points.sort(key=lambda point: point[0])
    parts.append(Markup('<circle class="here" r="4" visibility="hidden"/>'))
    return Markup(_CHART).format(
        title=title,
        size=f"0 0 {WIDTH} {HEIGHT}",
        last=len(points) - 1,
        first=points[0][2],
        points=json.dumps(points, ensure_ascii=False),
        parts=Markup("").join(parts),
    )


_CHART = """<figure class="chart"><figcaption>{title}</figcaption>
<svg viewBox="{size}" tabindex="0" role="slider" aria-label="{title}: arrow keys read the values" aria-valuemin="0"
 aria-valuemax="{last}" aria-valuenow="0" aria-valuetext="{first}" data-points="{points}">{parts}</svg>
<output></output></figure>"""


def legend(series: Sequence[Series], marks: bool = True) -> Markup:
    """The names of several series with their colours, and their shapes (`marks`) or dashes; nothing for one."""
    if len(series) < 2:
        return Markup()
    line = Markup(
        '<svg width="26" height="10" aria-hidden="true"><line x2="26" y1="5" y2="5" stroke="currentColor" '
        'stroke-width="2"{}/></svg>'
    )
    items = [
        Markup('<li class="c{}">{} <b>{}</b></li>').format(
            one.kind % COLOURS, _shape(one) if marks else line.format(_dashes(one)), one.name
        )
        for one in series
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _finite(one: Series) -> Series:
    """The series without points that lie nowhere: NaN and infinity."""
    kept = [i for i, point in enumerate(one.points) if all(map(math.isfinite, point))]
    notes = [one.notes[i] for i in kept] if one.notes else ()
    return replace(one, points=[one.points[i] for i in kept], notes=notes)


def _reach(one: Series, side: int) -> list[float]:
    return [point[side] for point in one.points] + list(one.spans[side] if one.spans else ())


def _axis(values: Sequence[float], start: float, end: float, zero: bool) -> Axis:
    """Wide enough for all values, with a little room; a single value stands in the middle."""
    low, high = min([*values, *([0.0] if zero else [])]), max([*values, *([0.0] if zero else [])])
    room = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    return Axis(low - room, high + room, start, end)


def _frame(across: Axis, up: Axis, x: str, cross: bool) -> list[Markup]:
    line = Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    text = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
    parts = []
    for value in up.ticks(6):
        parts.append(line.format("grid", LEFT, WIDTH - RIGHT, up.at(value), up.at(value)))
        parts.append(text.format(LEFT - 4, up.at(value) + 4, "end", _short(value, up)))
    for value in across.ticks(5):
        parts.append(line.format("grid", across.at(value), across.at(value), HEIGHT - BOTTOM, HEIGHT - BOTTOM + 3))
        parts.append(text.format(across.at(value), HEIGHT - BOTTOM + 14, "middle", _short(value, across)))
    parts.append(text.format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "middle", x))
    if cross:
        parts.append(line.format("axis", across.at(0), across.at(0), TOP, HEIGHT - BOTTOM))
        parts.append(line.format("axis", LEFT, WIDTH - RIGHT, up.at(0), up.at(0)))
    else:
        parts.append(line.format("axis", LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, HEIGHT - BOTTOM))
    return parts


def _drawn(one: Series, across: Axis, up: Axis) -> Markup:
    kind, parts = one.kind % COLOURS, []
    if one.spans:
        (left, right), (low, high) = one.spans
        x, y = one.points[0]
        whisker = Markup('<path class="whisker" d="M{} {}H{}M{} {}V{}"/>')
        parts.append(whisker.format(across.at(left), up.at(y), across.at(right), across.at(x), up.at(low), up.at(high)))
    if len(one.points) > 1:
        kept = thinned(one.points)
        places = " ".join(f"{across.at(one.points[i][0])},{up.at(one.points[i][1])}" for i in kept)
        parts.append(Markup('<polyline points="{}"{}/>').format(places, _dashes(one)))
    else:
        x, y = one.points[0]
        mark = Markup('<text class="mark" x="{}" y="{}" text-anchor="middle" style="fill:currentColor">{}</text>')
        parts.append(mark.format(across.at(x), up.at(y) + 4, _shape(one)))
    return Markup('<g class="c{}">{}</g>').format(kind, Markup("").join(parts))


def _shape(one: Series) -> str:
    """Another shape in a second round of the colours, so that no two of 36 series are alike."""
    return SHAPES[(one.kind + one.kind // COLOURS) % len(SHAPES)]


def _dashes(one: Series) -> Markup:
    """Every second series is dashed, and a second round of colours the other way about."""
    return Markup(' class="dashed"') if (one.kind + one.kind // COLOURS) % 2 else Markup()


def _short(value: float, axis: Axis) -> str:
    """A tick's number, with no more digits than the axis needs."""
    size = max(abs(axis.low), abs(axis.high))
    if abs(value) < 1e-9 * size:
        return "0"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if size < 1e-3 or size >= 1e6 else f"{value:.4g}"
