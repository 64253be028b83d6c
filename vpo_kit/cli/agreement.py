"""`vpo label --judge-against` and `--agreement`: how far the labels of two sets agree, and those of several people."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from vpo_kit.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from vpo_kit.labelling.agreement import Agreement
    from vpo_kit.pairing.store import PairSet

NAMES = {1: "first", -1: "second", 0: "tie"}
FIGURES = ("agree", "kappa", "without ties", "agree", "kappa")


def of_sets(path: Path, other: Path) -> None:
    """Print agreement and Cohen's kappa, with ties and without, over segments and clips. Raises `DataError`."""
    from rich import box
    from rich.table import Table

    from vpo_kit.labelling.agreement import compare
    from vpo_kit.library.display import terminal
    from vpo_kit.pairing import store

    first, second = store.read(path), store.read(other)
    found = compare(first, second)
    console = terminal()
    lines = [
        f"{path}: labels by {_labellers(first)}",
        f"{other}: labels by {_labellers(second)}",
        f"{found.pairs} pairs with labels in both; {found.unlabelled} without in one of them, "
        f"{found.missing} that {other} lacks",
    ]
    if found.cut_differently:
        lines.append(f"{found.cut_differently} pairs are cut into other segments: only their clips are compared")
    for text in lines:
        console.print(text, soft_wrap=True, highlight=False)
    table = Table("labels", box=box.SIMPLE_HEAD)
    for column in ("items", *FIGURES):
        table.add_column(column, justify="right")
    table.add_row("segments", *_cells(found.segments), *_cells(found.segments.decided))
    table.add_row("whole clips", *_cells(found.clips), *_cells(found.clips.decided))
    console.print(table)
    _print_labels(console, found.segments)


def _print_labels(console: Console, found: Agreement) -> None:
    """Print which labels meet which, over segments."""
    from rich import box
    from rich.table import Table

    if not found.items:
        return
    table = Table("segments", *(f"there {name}" for name in NAMES.values()), box=box.SIMPLE_HEAD)
    for label, name in NAMES.items():
        table.add_row(f"here {name}", *(str(found.counts.get((label, other), 0)) for other in NAMES))
    console.print(table)


def of_people(path: Path) -> None:
    """Print how well the people agree who labelled the set at `path`, how they do on gold questions, and how long they
    take. Raises `VpoError`.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from vpo_kit.labelling.agreement import alpha
    from vpo_kit.labelling.people import finish
    from vpo_kit.labelling.people.answers import PeopleAnswers
    from vpo_kit.labelling.people.questions import Survey
    from vpo_kit.library.display import terminal
    from vpo_kit.pairing import store
    from vpo_kit.pairing.set_tables import part

    console, found = terminal(), store.read(path)
    with closing(PeopleAnswers(path, create=False, say=console.print)) as answers:
        survey = Survey(found, answers.settle({}))
        people, pairs = finish.annotators(answers, survey), finish.pairwise(answers, survey)
        current, comments = answers.current(), answers.comments()
    if not people:
        raise DataError(f"{path}: nobody has answered: vpo label SET --with people asks")
    table = Table("annotator", title="Annotators", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("segments", "ties", "A of decided", "gold right", "median s", "total min"):
        table.add_column(column, justify="right")
    for one in people:
        decided, time = one.answers - one.ties, (f"{one.median_seconds:.1f}", f"{one.total_seconds / 60:.1f}")
        gold = f"{one.gold_right} of {one.gold}" if one.gold else "-"
        row = (str(one.answers), part(one.ties, one.answers), _share(one.first_shown, decided), gold)
        table.add_row(Text(one.name), *row, *time)
    console.print(table)
    for who, pair, said in comments:
        console.print(f"{who}, pair {pair}: {said}", soft_wrap=True, highlight=False)
    if not pairs:
        console.print("One annotator: there is no agreement to measure.")
        return
    table = Table("annotators", title="Agreement", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("segments", *FIGURES):
        table.add_column(column, justify="right")
    for first, second, both in pairs:
        table.add_row(Text(f"{first}, {second}"), *_cells(both), *_cells(both.decided))
    console.print(table)
    whole = alpha((answer.question, answer.choice) for answer in current if answer.question in survey.known)
    if whole is not None:
        console.print(f"Krippendorff's alpha of all: {whole:.3f}", highlight=False)


def _cells(found: Agreement) -> tuple[str, str, str]:
    kappa = "-" if found.kappa is None else f"{found.kappa:.3f}"
    return str(found.items), _share(found.agreeing, found.items), kappa


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def _labellers(found: PairSet) -> str:
    return ", ".join(sorted({pair.labeller for pair in found.pairs if pair.labeller})) or "nobody"
