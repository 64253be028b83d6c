"""The numbers of a set as tables of text, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vpo_kit.pairing.inspect import QUANTILES, Labels, Summary
from vpo_kit.pairing.store import PairSet

IDS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One table; without `columns` its rows are a name and a value each. Columns `left` hold words, others numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    left: Sequence[int] = (0,)


def grids(found: PairSet, summary: Summary) -> list[Grid]:
    """All tables of a set; those without numbers are left out."""
    shown = [_about(found, summary), _labels(summary)]
    if summary.segment_margins and summary.clip_margins:
        shown.append(_margins(found, summary.segment_margins, summary.clip_margins))
    if summary.motion:
        motion = summary.motion
        row = (
            "segments",
            f"{motion.winner:.4f}",
            f"{motion.loser:.4f}",
            f"{motion.ratio:.3f}",
            part(motion.less, motion.count),
        )
        columns = ("motion", "winners", "losers", "ratio of means", "winner moves less")
        shown.append(
            Grid(
                title="Motion of winners and losers",
                columns=columns,
                rows=[row],
                note=f"{motion.count} decided segments",
            )
        )
    return [*shown, _duplicates(summary)]


def part(count: int, total: int) -> str:
    """A count with its share: ``12 (25%)``."""
    return f"{count} ({count / total:.0%})" if total else str(count)


def _about(found: PairSet, summary: Summary) -> Grid:
    sizes = sorted({(pair.frames, pair.fps) for pair in found.pairs})
    lengths = ", ".join(f"{frames} frames at {fps:g} a second" for frames, fps in sizes[:IDS_SHOWN])
    rows = [
        ("pairs", str(summary.pairs)),
        ("prompts", str(summary.prompts)),
        ("strategy", ", ".join(summary.strategies)),
        ("model", found.model),
        ("videos", lengths + (", ..." if len(sizes) > IDS_SHOWN else "")),
        ("labels", summary.labellers or "none yet"),
    ]
    if summary.etas:
        low, middle, high = summary.etas
        rows.insert(4, ("eta", f"{low:.3f} to {high:.3f}, median {middle:.3f}"))
    skipped = found.facts.get("skipped")
    if skipped:
        rows.append(("left out", f"{len(skipped)} when the set was made (dataset.yaml says why)"))
    if found.broken:
        rows.append(("unreadable", f"{len(found.broken)} lines (vpo pair check names them)"))
    return Grid(title="Set", columns=(), rows=rows, left=(0, 1))


def _labels(summary: Summary) -> Grid:
    columns = ("labels", "count", "first", "second", "tie", "none", "first of decided")
    rows = [_label_row("segments", summary.segments), _label_row("whole clips", summary.clips)]
    note = f"pairs with both +1 and -1: {part(summary.both, summary.labelled)}" if summary.labelled else ""
    return Grid(title="Labels", columns=columns, rows=rows, note=note)


def _label_row(name: str, labels: Labels) -> tuple[str, ...]:
    counts = (labels.first, labels.second, labels.tie, labels.none)
    decided = labels.first + labels.second
    balance = f"{labels.first / decided:.0%}" if decided else "-"
    return (name, str(labels.count), *(part(count, labels.count) for count in counts), balance)


def _margins(found: PairSet, segments: Sequence[float], clips: Sequence[float]) -> Grid:
    names = {0.0: "least", 0.5: "median", 1.0: "most"}
    columns = ("margins", *(names.get(q, f"{q:.0%}") for q in QUANTILES))
    rows = [
        (name, *(f"{value:.3g}" for value in row)) for name, row in (("segments", segments), ("whole clips", clips))
    ]
    facts = found.facts.get("labels")
    margin = facts.get("tie_margin") if isinstance(facts, dict) else None
    note = f"a segment is a tie up to {margin:.3g}" if isinstance(margin, int | float) else ""
    return Grid(title="Score margins (first against second, quantiles)", columns=columns, rows=rows, note=note)


def _duplicates(summary: Summary) -> Grid:
    found = summary.duplicates
    groups = (
        ("one video in several pairs", found.videos),
        ("one latents file in several pairs", found.latents),
        ("same prompt and seeds", found.draws),
        ("both videos of a pair the same", [(name,) for name in found.twins]),
    )
    rows = [(name, str(len(ids)), _ids(ids)) for name, ids in groups]
    return Grid(title="Duplicates", columns=("duplicates", "count", "pairs"), rows=rows, left=(0, 2))


def _ids(groups: Sequence[tuple[str, ...]]) -> str:
    shown = ["+".join(ids[:IDS_SHOWN]) + ("+..." if len(ids) > IDS_SHOWN else "") for ids in groups[:IDS_SHOWN]]
    return ", ".join(shown) + (", ..." if len(groups) > IDS_SHOWN else "")
