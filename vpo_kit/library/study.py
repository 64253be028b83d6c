"""`vpo study`: people judge the rows of a board or evaluation, blind, two at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from vpo_kit import files
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.evaluation import people
from vpo_kit.evaluation.people import PeopleSay
from vpo_kit.labelling import base as labellers
from vpo_kit.labelling.people import finish
from vpo_kit.labelling.people.answers import Answer, PeopleAnswers
from vpo_kit.labelling.people.questions import Survey, plain_name
from vpo_kit.library import study_tables
from vpo_kit.library.leaderboard import notice
from vpo_kit.library.pair import label
from vpo_kit.pairing import imported, store
from vpo_kit.study import panel, subjects
from vpo_kit.study.design import design, matches

DIMENSIONS = ("quality", "motion", "text")


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """A study: what is judged and how; `asking` are settings of the page (host, port, overlap, gold, ...).

    `rows` and `pairs` are all there are where they are not given; `without` names raters who do not count.
    """

    source: Path
    output: Path
    rows: Sequence[str] = ()
    pairs: int | None = None
    seed: int = 0
    dimensions: Sequence[str] = DIMENSIONS
    without: Sequence[str] = ()
    least_gold: float = 0.0
    asking: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fixed(self) -> dict[str, Any]:
        """What a study is known by."""
        asked = {"rows": list(self.rows), "pairs": self.pairs, "seed": self.seed}
        return {**asked, "dimensions": list(self.dimensions)}


def plan(request: StudyRequest, console: Console) -> None:
    """Print what the study will ask, and how many raters which difference takes. Raises `VpoError`."""
    found = subjects.read(request.source, request.rows)
    every = len(found.prompts) * len(matches(len(found.names)))
    count = min(every, request.pairs or every)
    study_tables.show_plan(console, found.names, count, len(request.dimensions), request.asking.get("overlap"))


def run(request: StudyRequest, console: Console) -> dict[str, Any]:
    """Make the study or go on with it, ask until somebody ends it, and say what people said; what ``results.json`` in
    the output holds is returned. Raises `VpoError`.
    """
    without = [_name(name) for name in request.without]
    settings: dict[str, Any] = {"dimensions": list(request.dimensions), "seed": request.seed}
    settings["least_gold"] = request.least_gold
    labellers.plan("people", {**settings, **request.asking})  # sees what is missing before a set is made
    if not (request.output / "dataset.yaml").is_file():
        if request.asking.get("finish"):
            raise DataError(f"{request.output} is no study yet: the same command without --finish begins it")
        plan(request, console)
        found = subjects.read(request.source, request.rows)
        facts = {"format": 1, "source": str(request.source), "study": {**request.fixed, "names": list(found.names)}}
        imported.write(design(request.output.name, found, request.pairs, request.seed), request.output, facts)
    names = _names(request)
    _check_source(request, names)
    label(request.output, "people", **settings, **request.asking)
    return _tell(request, names, without, console)


def _name(given: str) -> str:
    try:
        return plain_name(given)
    except ValueError as error:
        raise ConfigError(f"--without {given!r}: {error}") from error


def _names(request: StudyRequest) -> list[str]:
    """The rows of the study on disk. Raises `ConfigError` where it is another one than the request's."""
    held = store.read(request.output).facts.get("study")
    if not isinstance(held, dict):
        raise ConfigError(f"{request.output} is a pair set and no study: give another --output")
    changed = [name for name, value in request.fixed.items() if held.get(name) != value]
    if changed:
        raise ConfigError(
            f"{request.output} was begun with another --{' and --'.join(changed)}: give the same, or another --output"
        )
    return [str(name) for name in held["names"]]


def _check_source(request: StudyRequest, names: Sequence[str]) -> None:
    """Raises `ConfigError` where the source is another board or evaluation than the one whose videos the study shows:
    rows of two boards are often called alike. What is not there any more is no other one.
    """
    if not request.source.is_dir():
        return
    shown: dict[str, set[str]] = {name: set() for name in names}
    for pair in store.read(request.output).pairs:
        for name, sha256 in zip(pair.models or (), (pair.sha256.first, pair.sha256.second), strict=False):
            shown.setdefault(name, set()).add(sha256)
    videos = subjects.every_video(request.source)
    for name, wanted in shown.items():
        there = {files.sha256(path) for path in videos.get(name, ())}
        if there and not wanted <= there:
            raise ConfigError(
                f"{request.output} shows videos of {name} that {request.source} does not have: give the board or the "
                "evaluation that the study was begun with, or another --output"
            )


def _tell(request: StudyRequest, names: Sequence[str], without: Sequence[str], console: Console) -> dict[str, Any]:
    found = store.read(request.output)
    pairs = {pair.id: pair for pair in found.pairs}
    with closing(PeopleAnswers(request.output, create=False)) as answers:
        survey = Survey(found, answers.settle({}))
        current = [answer for answer in answers.current() if answer.question in survey.known]
        everybody = finish.annotators(answers, survey)
    failed = {one.name for one in everybody if one.fails(request.least_gold)} | set(without)
    counted = [answer for answer in current if answer.annotator not in failed]
    if not counted:
        raise DataError(f"{request.output}: nobody has answered yet: the same command without --finish asks")
    by_dimension: dict[str, list[Answer]] = {name: [] for name in survey.settings.dimensions}
    for answer in counted:
        by_dimension[answer.question.dimension].append(answer)
    said = [panel.dimension(name, given, pairs, names) for name, given in by_dimension.items() if given]
    raters = panel.raters(current)
    facts = study_tables.facts(names, said, raters, sorted(failed), len(pairs))
    study_tables.write(request.output, facts)
    study_tables.show(console, said, raters, everybody, failed)
    _join(request, said, console)
    return facts


def _join(request: StudyRequest, said: Sequence[panel.Dimension], console: Console) -> None:
    """Leave what people said where the board or the evaluation looks for it."""
    if not request.source.is_dir():
        notice(console, f"{request.source} is not here: what people said stands in {request.output} alone")
        return
    for line in people.join(request.source, request.output.name, _by_row(said, request.output.name)):
        notice(console, line)
    command = "vpo compare" if subjects.is_board(request.source) else "vpo eval"
    notice(console, f"the same {command} as before shows this beside the judges")


def _by_row(said: Sequence[panel.Dimension], study: str) -> dict[str, dict[str, PeopleSay]]:
    """What people said of every row that they saw, as the board or the evaluation shows it."""
    rows: dict[str, dict[str, PeopleSay]] = {}
    for one in said:
        for name, row in one.rows.items():
            if row.verdicts:  # of others the model knows no more than its prior
                rows.setdefault(name, {})[one.name] = PeopleSay(
                    study=study,
                    win_rate=row.win_rate,
                    low=row.win_low,
                    high=row.win_high,
                    log_odds=row.log_odds,
                    log_odds_low=row.low,
                    log_odds_high=row.high,
                    verdicts=row.verdicts,
                    raters=row.raters,
                    alpha=one.alpha,
                )
    return rows
