"""Numbers as text, and the table of a comparison in Markdown and LaTeX: one row a metric, one column a model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from vpo_kit.evaluation.metrics import about
from vpo_kit.evaluation.statistics import LEVEL, Paired

Changes = Mapping[str, Paired]
"""Metric to change, of one comparison with the base."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
LATEX_ARROWS = {"higher": "↑", "lower": "↓", "neutral": "--"}
_MARKDOWN = "\\`*_[]<>|~#"


MOST_DECIMALS = 4
"""More are written with an exponent."""


def decimals(change: Paired) -> int:
    """The number that shows two digits of half of the interval, or without one three of the change; at least 1.

    A change that its interval is tiny beside needs no more than four digits of its own.
    """
    half = (change.high - change.low) / 2
    largest = max(abs(change.difference), abs(change.low), abs(change.high))
    if not (math.isfinite(largest) and largest > 0):
        return 3
    own = 3 - math.floor(math.log10(largest))
    if not half > 0:
        return max(3, own - 1)
    found = max(1, 1 - math.floor(math.log10(half)))
    return found if found <= MOST_DECIMALS else min(found, max(MOST_DECIMALS, own))


def values(change: Paired) -> tuple[str, str]:
    """The means before and after."""
    digits = min(decimals(change), 7)
    return f"{change.before:z.{digits}f}", f"{change.after:z.{digits}f}"


def span(change: Paired) -> str:
    """The difference with its interval, ``+0.12 [+0.03, +0.21]``; a small one as ``+0.4e-6 [-0.8e-6, +1.6e-6]``, and
    none at all as ``0 [0, 0]``: whatever is not zero is not shown as zero.
    """
    parts = (change.difference, change.low, change.high)
    if not any(parts):
        return "0 [0, 0]"
    digits, power = decimals(change), 0
    if digits > MOST_DECIMALS:
        power = math.floor(math.log10(max(map(abs, parts))))
        digits = max(1, digits + power)
    shown = [f"{part / 10.0**power:+z.{digits}f}" + (f"e{power}" if power else "") for part in parts]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def whole(change: Paired) -> str:
    """The mean with its change, ``0.63 (+0.12 [+0.03, +0.21])*``; the star is p below `LEVEL`."""
    return f"{values(change)[1]} ({span(change)}){'*' if change.significant else ''}"


def chance(change: Paired) -> str:
    """The corrected p, with a star below `LEVEL`."""
    p = change.p if change.adjusted is None else change.adjusted
    return ("<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")) + ("*" if p < LEVEL else "")


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def caption(changes: Mapping[str, Changes]) -> str:
    """What a reader of a table has to know."""
    first = next(iter(changes.values()))
    count = next(iter(first.values())).count
    return (
        f"{count} videos of each model, the same prompts and seeds. Change against the base with its 95% interval over "
        f"prompts; * p below {LEVEL} by a sign-flip test over prompts, with Holm's correction for the "
        f"{sum(change.changed for change in first.values())} metrics in which anything changed."
    )


def markdown(base: str, changes: Mapping[str, Changes]) -> str:
    """A table of all models; the names are escaped. Arrows say which way is better."""
    arrows = {"higher": "↑", "lower": "↓", "neutral": "–"}
    lines = [
        _row(["metric", "better", base, *changes], markdown_text),
        _row(["---", "---", *["---:"] * (1 + len(changes))], str),
    ]
    for name, cells in _cells(changes):
        lines.append(_row([markdown_text(name), arrows[about(name).direction], *cells], str))
    return "\n".join([*lines, "", caption(changes), ""])


def latex(base: str, changes: Mapping[str, Changes]) -> str:
    """The same for LaTeX with booktabs; the names are escaped."""
    rows = [[name, LATEX_ARROWS[about(name).direction], *cells] for name, cells in _cells(changes)]
    lines = booktabs(f"lc{'r' * (1 + len(changes))}", ["metric", "better", base, *changes], rows)
    return "\n".join([*lines, f"% {latex_text(caption(changes))}", ""])


def booktabs(columns: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a LaTeX table, everything escaped; columns that are not ``l`` are of figures."""
    body = [
        " & ".join(
            latex_text(cell) if kind == "l" else latex_cell(cell) for kind, cell in zip(columns, row, strict=True)
        )
        for row in rows
    ]
    top = " & ".join(map(latex_cell, head))
    begin = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", rf"{top} \\", r"\midrule"]
    return [*begin, *(rf"{row} \\" for row in body), r"\bottomrule", r"\end{tabular}"]


def markdown_text(text: str) -> str:
    """Text as it stands, in a cell of a table."""
    return "".join(f"\\{c}" if c in _MARKDOWN else c for c in " ".join(text.split()))


def latex_text(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))


def _cells(changes: Mapping[str, Changes]) -> list[tuple[str, list[str]]]:
    """A row for each metric: the base's mean, and each model's mean with its change; empty where a model lacks it."""
    names = list(dict.fromkeys(name for found in changes.values() for name in found))
    rows = []
    for name in names:
        present = [found[name] for found in changes.values() if name in found]
        cells = [whole(found[name]) if name in found else "" for found in changes.values()]
        rows.append((name, [values(present[0])[0], *cells]))
    return rows


def _row(cells: Sequence[str], escape: Callable[[str], str]) -> str:
    return f"| {' | '.join(map(escape, cells))} |"


def latex_cell(cell: str) -> str:
    """Escaped; LaTeX sets a hyphen outside of mathematics where a minus sign is longer, and arrows inside it."""
    found = latex_text(cell)
    if any(sign in cell for sign in "[(") or re.fullmatch(r"-[\d.]+", cell):
        found = found.replace("-", "$-$").replace("+", "$+$")
    return found.replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$").replace("≥", r"$\geq$")
