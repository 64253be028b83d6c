"""`vpo label SET --agreement`: how well the people agree who labelled a set, and how they do on known answers."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vpo_kit.errors import DataError
from vpo_kit.labelling.agreement import Agreement
from vpo_kit.labelling.people import finish
from vpo_kit.labelling.people.answers import PeopleAnswers
from vpo_kit.labelling.people.questions import Survey
from vpo_kit.pairing import store
from vpo_kit.pairing.set_tables import part


def agreement(path: Path) -> None:
    """Print the report on the answers of the set at `path`. Raises `VpoError`."""
    found = store.read(path)
    with closing(PeopleAnswers(path, create=False, say=Console().print)) as answers:
        report(Survey(found, answers.settle({})), answers)


def report(survey: Survey, answers: PeopleAnswers) -> None:
    """Print how well annotators agree, how they do on gold questions, and how long they take."""
    people = finish.annotators(answers, survey)
    if not people:
        raise DataError(f"{survey.path}: nobody has answered: vpo label SET --with people asks")
    console = Console()
    table = Table("annotator", title="Annotators", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("segments", "ties", "A of decided", "gold right", "median s", "total min"):
        table.add_column(column, justify="right")
    for one in people:
        decided, time = one.answers - one.ties, (f"{one.median_seconds:.1f}", f"{one.total_seconds / 60:.1f}")
        row = (str(one.answers), part(one.ties, one.answers), _share(one.first_shown, decided))
        table.add_row(Text(one.name), *row, _of(one.gold_right, one.gold), *time)
    console.print(table)
    pairs = finish.pairwise(answers, survey)
    if not pairs:
        console.print("One annotator: there is no agreement to measure.")
        return
    table = Table("annotators", title="Agreement", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("segments", "agree", "kappa", "without ties", "agree", "kappa"):
        table.add_column(column, justify="right")
    for first, second, found in pairs:
        table.add_row(Text(f"{first}, {second}"), *_cells(found), *_cells(found.decided))
    console.print(table)


def _cells(found: Agreement) -> tuple[str, str, str]:
    kappa = "-" if found.kappa is None else f"{found.kappa:.3f}"
    return str(found.items), _share(found.agreeing, found.items), kappa


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def _of(count: int, total: int) -> str:
    return f"{count} of {total}" if total else "-"
