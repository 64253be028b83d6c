"""`vpo label SET --with people` and `--agreement`: a page for people, their answers as labels, how well they agree."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vpo_kit import config
from vpo_kit.errors import ConfigError, DataError, OutputError
from vpo_kit.labelling.agreement import Agreement
from vpo_kit.labelling.people import outcome
from vpo_kit.labelling.people.answers import Answers
from vpo_kit.labelling.people.questions import People, PeopleLabelling, Survey, read_gold
from vpo_kit.pairing import store
from vpo_kit.pairing.store import PairSet
from vpo_kit.pairing.tables import part

FOLDER = ".people"
CONNECTIONS = 128  # a browser may keep six open


def run(
    path: Path,
    assignments: Sequence[str],
    seed: int | None,
    gold: Path | None,
    host: str,
    port: int,
    *,
    finish: bool,
    agreement: bool,
) -> None:
    """Serve the page; or write the labels with `finish`, print a report with `agreement`. Raises `VpoError`."""
    values: dict[str, Any] = dict(config.read_assignments(assignments))
    if seed is not None:
        values["seed"] = seed
    settings = config.validate(PeopleLabelling, values)
    # nothing but what was given: the file of answers knows the rest
    fixed = settings.model_dump(include=set(values) & set(People.model_fields))
    found = store.read(path)  # before a file is made in some other folder
    with closing(Answers(path / FOLDER / "answers.sqlite", create=not (finish or agreement))) as answers:
        answers.settle(fixed)
        if not (finish or agreement):
            _serve(found, answers, gold, host, port, drop=settings.unanswered == "drop")
        if finish:
            print(_finish(path, answers, drop=settings.unanswered == "drop"))
        if agreement:
            report(Survey(found, answers.settle({})), answers)


def _serve(found: PairSet, answers: Answers, gold: Path | None, host: str, port: int, *, drop: bool) -> None:
    """Until Ctrl-C or the page's own finish key; the labels are written then."""
    try:
        import uvicorn

        from vpo_kit import web
        from vpo_kit.labelling.people import server
    except ImportError as error:
        raise ConfigError(f"vpo label --with people needs {error.name}: pip install 'vpo-kit[server]'") from error
    path, settings = found.path, answers.settle({})
    if gold is not None:
        answers.set_gold(read_gold(gold, Survey(found, settings)))
    survey = Survey(found, settings, answers.gold())
    token = _token(path / FOLDER / "token")
    with web.listen(host, port) as listener:

        def end() -> str:
            said = _finish(path, answers, drop=drop)
            running.should_exit = True
            return said

        app = server.create_app(survey, answers, token=token, finish=end)
        running = uvicorn.Server(web.settings(app, CONNECTIONS))
        questions = sum(len(parts) for parts in survey.questions.values())
        print(f"{path}: {len(survey.pairs)} pairs, {questions} segments; answers are kept in {path / FOLDER}")
        print("Ctrl-C here, or F on the page, ends labelling: the answers become the set's labels")
        print(f"{web.address(host, listener)}/?token={token}", flush=True)
        with suppress(KeyboardInterrupt):
            running.run(sockets=[listener])
    print(_finish(path, answers, drop=drop), flush=True)


def _finish(path: Path, answers: Answers, *, drop: bool) -> str:
    return describe(path, outcome.finish(path, answers, drop=drop), drop=drop)


def report(survey: Survey, answers: Answers) -> None:
    """Print how well annotators agree, how they do on gold questions, and how long they take."""
    people = outcome.annotators(answers, survey)
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
    pairs = outcome.pairwise(answers, survey)
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


def describe(path: Path, done: outcome.Outcome, *, drop: bool = False) -> str:
    """One line on what a finish did."""
    stale = f"; {done.stale} answers are about videos or segments that the set no longer has" if done.stale else ""
    if not done.labelled:
        return f"{path}: no pair is answered in all of its segments, the labels stay as they are{stale}"
    people = f"{done.annotators} annotator{'s' if done.annotators != 1 else ''}"
    rest = done.pairs - done.labelled
    left = "have no labels now" if drop else "keep the labels they had"
    kept = f"; the other {rest}, {done.partly} of them answered in part, {left}" if rest else ""
    return f"{path}: {done.labelled} of {done.pairs} pairs labelled by {people}{kept}{stale}"


def _token(path: Path) -> str:
    """The set's own token, the same at each start: pages that are open go on with a server that was started again."""
    try:
        known = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        if re.fullmatch(r"[\w-]{32}", known, re.ASCII):
            return known
        token = secrets.token_urlsafe(24)
        path.touch(0o600)
        path.chmod(0o600)
        path.write_text(f"{token}\n", encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"cannot keep {path}: {getattr(error, 'strerror', None) or error}") from error
    return token
