"""`vpo label SET --judge-against OTHER`: how far the labels of two sets agree."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from vpo_kit.labelling.agreement import LABELS, Agreement, compare
from vpo_kit.pairing import store
from vpo_kit.pairing.store import PairSet

NAMES = {1: "first", -1: "second", 0: "tie"}


def run(path: Path, other: Path) -> None:
    """Print agreement and Cohen's kappa, with ties and without, over segments and clips. Raises `DataError`."""
    first, second = store.read(path), store.read(other)
    found = compare(first, second)
    console = Console()
    lines = [
        f"{path}: labels by {_labellers(first)}",
        f"{other}: labels by {_labellers(second)}",
        f"{found.pairs} pairs with labels in both; {found.unlabelled} without in one of them, "
        f"{found.missing} that {other} lacks",
    ]
    if found.cut_differently:
        lines.append(f"{found.cut_differently} pairs are cut into other segments: only their clips are compared")
    for text in lines:
        console.print(text, soft_wrap=True, markup=False, highlight=False)
    table = Table("labels", box=box.SIMPLE_HEAD)
    for column in ("items", "agree", "kappa", "without ties", "agree", "kappa"):
        table.add_column(column, justify="right")
    table.add_row("segments", *_cells(found.segments), *_cells(found.segments.decided))
    table.add_row("whole clips", *_cells(found.clips), *_cells(found.clips.decided))
    console.print(table)
    _cross(console, found.segments)


def _cross(console: Console, found: Agreement) -> None:
    """Which labels meet which, over segments."""
    if not found.items:
        return
    table = Table("segments", *(f"there {NAMES[label]}" for label in LABELS), box=box.SIMPLE_HEAD)
    for label in LABELS:
        counts = (str(found.counts.get((label, other), 0)) for other in LABELS)
        table.add_row(f"here {NAMES[label]}", *counts)
    console.print(table)


def _cells(found: Agreement) -> tuple[str, str, str]:
    share = "-" if found.share is None else f"{found.share:.1%}"
    return str(found.items), share, "-" if found.kappa is None else f"{found.kappa:.3f}"


def _labellers(found: PairSet) -> str:
    return ", ".join(sorted({pair.labeller for pair in found.pairs if pair.labeller})) or "nobody"
