"""What a study is to ask and what people said, as tables and as plain numbers."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from vpo_kit import files
from vpo_kit.evaluation import tables
from vpo_kit.evaluation.report import versions
from vpo_kit.labelling.people.finish import Annotator
from vpo_kit.library.leaderboard import empty_table, notice
from vpo_kit.study import sizes
from vpo_kit.study.panel import Dimension, Rater

DIFFERENCES = (0.05, 0.1, 0.15, 0.2)


def show_plan(console: Console, names: Sequence[str], pairs: int, dimensions: int, overlap: int | None) -> None:
    """Print the size of a study and what it can find."""
    notice(console, f"{len(names)} rows: {', '.join(names)}")
    notice(console, f"{pairs} pairs, {dimensions} questions each; every two rows meet as often as any other two")
    spread = sizes.effective(pairs, len(names))
    table = empty_table("raters for each pair that find a win rate (80% power)", ("win rate", "raters"))
    for difference in DIFFERENCES:
        table.add_row(f"{0.5 + difference:.0%}", _raters(sizes.raters(difference, spread)))
    console.print(table)
    noise = sizes.PLANNED
    text = f"{overlap or 1} for each pair: {_finds(sizes.least(spread, overlap or 1))}"
    notice(console, f"{text}; supposed are {noise.ties:.0%} ties and Krippendorff's alpha {noise.alpha}")


def _finds(difference: float) -> str:
    return f"finds a win rate of {0.5 + difference:.0%}" if difference < 0.5 else "finds no difference"


def _raters(count: int | None) -> str:
    return "more pairs" if count is None else str(count)


def facts(
    names: Sequence[str], said: Sequence[Dimension], raters: Sequence[Rater], failed: Sequence[str], pairs: int
) -> dict[str, Any]:
    """``results.json``: raters have numbers in the order of their names, and no names."""
    people = [
        {**asdict(one), "name": f"rater {i}", "counts": one.name not in failed} for i, one in enumerate(raters, 1)
    ]
    dimensions = {
        one.name: {
            **{key: value for key, value in asdict(one).items() if key not in ("name", "needed")},
            "raters_needed": {f"{0.5 + difference:.2f}": count for difference, count in one.needed.items()},
        }
        for one in said
    }
    own = {"command": "vpo study", "rows": list(names), "base": names[0], "pairs": pairs, "versions": versions()}
    return {**own, "dimensions": dimensions, "raters": people}


def write(folder: Path, found: dict[str, Any]) -> None:
    """Write ``results.json`` and ``results.md``. Raises `OutputError`."""
    files.write(folder / "results.json", json.dumps(found, indent=1) + "\n")
    files.write(folder / "results.md", markdown(found))


def markdown(found: dict[str, Any]) -> str:
    """A table of win rates over the base, one column a dimension, and what they rest on."""
    names = list(found["dimensions"])
    lines = [f"| row | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for row in found["rows"][1:]:
        cells = [_wins(found["dimensions"][name]["rows"][row]) for name in names]
        lines.append(f"| {tables.markdown_text(row)} | {' | '.join(cells)} |")
    counts = ", ".join(f"{name} {found['dimensions'][name]['verdicts']} ({_alpha(found, name)})" for name in names)
    count = sum(one["counts"] for one in found["raters"])
    return "\n".join([*lines, "", f"{CAPTION} {count} raters; verdicts (Krippendorff's alpha): {counts}.", ""])


CAPTION = (
    "Win rate over the base, a tie as half, with its 95% interval over prompts and raters: Bradley-Terry with ties "
    "(Davidson) over all verdicts, also those between other rows."
)


def _wins(row: dict[str, Any]) -> str:
    return f"{row['win_rate']:.0%} [{row['win_low']:.0%}, {row['win_high']:.0%}]"


def _alpha(found: dict[str, Any], name: str) -> str:
    value = found["dimensions"][name]["alpha"]
    return "not known" if value is None else f"{value:.2f}"


def show(
    console: Console,
    said: Sequence[Dimension],
    raters: Sequence[Rater],
    everybody: Sequence[Annotator],
    failed: Collection[str],
) -> None:
    """Print each dimension's rows, what a difference would have taken, and how the raters did."""
    for one in said:
        agreed = "not known" if one.alpha is None else f"{one.alpha:.2f}"
        table = empty_table(
            f"{one.name}: {one.verdicts} verdicts, {one.ties:.0%} ties, alpha {agreed}",
            ("", "wins over base [95%]", "log odds [95%]", "side by side"),
        )
        for name, row in one.rows.items():
            wins = f"{row.win_rate:.0%} [{row.win_low:.0%}, {row.win_high:.0%}]{'*' if row.significant else ''}"
            odds = f"{row.log_odds:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
            share, count = one.direct[name]
            table.add_row(Text(name), wins, odds, f"{share:.0%} of {count}" if count else "-")
        console.print(table)
        needed = ", ".join(f"{0.5 + gap:.0%}: {_raters(count)}" for gap, count in one.needed.items())
        notice(console, f"{_finds(one.least)}; raters for each pair that would find {needed}")
    _show_raters(console, raters, everybody, failed)


def _show_raters(
    console: Console, raters: Sequence[Rater], everybody: Sequence[Annotator], failed: Collection[str]
) -> None:
    known = {one.name: one for one in everybody}
    table = empty_table("raters", ("", "answers", "with the others", "ties", "A of decided", "known right", "median s"))
    for one in raters:
        of = known[one.name]
        decided = of.answers - of.ties
        table.add_row(
            Text(one.name),
            str(one.answers),
            f"{one.agreeing} of {one.shared}",
            f"{of.ties / of.answers:.0%}",
            f"{of.first_shown / decided:.0%}" if decided else "-",
            f"{of.gold_right} of {of.gold}" if of.gold else "-",
            f"{of.median_seconds:.1f}",
        )
    console.print(table)
    for one in raters:
        if one.guesses and one.name not in failed:
            notice(console, f"{one.name} seems to guess: --without {one.name!r} leaves those answers out")
    if failed:
        notice(console, f"left out: {', '.join(sorted(failed))}")
