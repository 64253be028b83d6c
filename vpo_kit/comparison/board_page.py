"""The page of a comparison: the board, quality against motion, and the videos of all rows side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from vpo_kit.comparison import text
from vpo_kit.comparison.board import Board
from vpo_kit.comparison.runner import BASE_SAMPLES
from vpo_kit.evaluation import players, report
from vpo_kit.evaluation.metrics import verdict
from vpo_kit.evaluation.players import Player
from vpo_kit.evaluation.samples import Results
from vpo_kit.pages import charts
from vpo_kit.pages.charts import Series
from vpo_kit.pages.differing import Differing
from vpo_kit.pages.templates import Head


def render(board: Board, place: Path, head: Head | None = None, own: Differing = ()) -> str:
    """The whole page, to be written at `place`; prompts and all other text are escaped. `own` are settings that differ
    from their defaults; the sentence of `head` is that of `said`.
    """
    shared = {key: value for key, value in board.facts.items() if key != "versions"}
    template = players.environment("vpo_kit.comparison").get_template("page.html.j2")
    rows = [(text.label(row.name), _yaml(row.settings)) for row in board.lines]
    return template.render(
        board=board,
        text=text,
        title=board.facts["title"],
        head=replace(head or Head(), said=said(board)),
        **players.shown(_players(board, place.parent), board.seeds, board.metrics),
        scatter=scatter(board),
        folders={
            row.name: [(o.seed, _relative(o.folder, place.parent)) for o in row.measured]
            for row in board.lines
            if row.trained
        },
        own=own,
        settings=[("what all rows share", _yaml(shared)), *rows],
        versions=board.facts.get("versions", {}),
        licences=[(name, said, bool(report.NON_COMMERCIAL.search(said))) for name, said in board.licences.items()],
    )


def said(board: Board) -> str:
    """What the board says in one sentence, by the metric that it is ranked by."""
    rows = [row for row in board.lines if row.trained and board.rank_by in row.changes]
    metric, total = board.rank_by or "", sum(row.trained for row in board.lines)
    if not rows:
        return f"None of {total} methods has been measured yet."
    found = [verdict(metric, row.changes[metric]) for row in rows]
    better, worse = found.count("better"), found.count("worse")
    first = f"{text.label(rows[0].name)} with {text.cell(rows[0].changes[metric])} ({found[0]})"
    left = f"; {total - len(rows)} not measured" if total > len(rows) else ""
    counts = f"{better or 'none'} of {len(rows)} better than the base and {worse} worse"
    return f"By {metric}, {counts}; first is {first}{left}."


def scatter(board: Board) -> Markup:
    """The change of quality over that of motion, each with its interval. Nothing where a metric is missing."""
    rows = [row for row in board.lines if {"motion", board.rank_by} <= set(row.changes)]
    if not rows or board.rank_by is None:
        return Markup()
    series = []
    for i, row in enumerate(rows):
        x, y = row.changes["motion"], row.changes[board.rank_by]
        spans, at = ((x.low, x.high), (y.low, y.high)), [(x.difference, y.difference)]
        series.append(Series(name=text.label(row.name), points=at, kind=i, spans=spans))
    title = f"change of {board.rank_by} over change of motion, with 95% intervals"
    chart = charts.chart(title, series, "motion", board.rank_by, cross=True)
    return Markup('<div class="charts large">{}</div>{}').format(chart, charts.legend(series))


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


def _players(board: Board, root: Path) -> list[Player]:
    """The base (one for each that the rows have), then every measured row."""
    known: list[Results] = []
    bases, rows = [], []
    for row in board.lines:
        if row.before is None or not row.trained:
            continue
        if row.before not in known:
            name = f"base of {text.label(row.name)}" if known else "base"
            where = _relative(row.measured[0].folder / BASE_SAMPLES, root)
            bases.append(Player(name, dict.fromkeys(board.seeds, (where, row.before)), len(known)))
            known.append(row.before)
        runs = {o.seed: (_relative(o.folder / o.samples, root), o.after) for o in row.measured if o.after}
        rows.append(Player(text.label(row.name), runs, known.index(row.before)))
    return [*bases, *rows]


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
