"""The page of a comparison: the board, quality against motion, and the videos of all rows side by side."""

from __future__ import annotations

import io
from pathlib import Path

import yaml

from vpo_kit.comparison import text
from vpo_kit.comparison.board import Board
from vpo_kit.comparison.runner import BASE_SAMPLES
from vpo_kit.evaluation import players, report
from vpo_kit.evaluation.players import Player
from vpo_kit.evaluation.samples import Results


def render(board: Board, place: Path) -> str:
    """The whole page, to be written at `place`; prompts and all other text are escaped."""
    shared = {key: value for key, value in board.facts.items() if key != "versions"}
    template = players.environment("vpo_kit.comparison").get_template("page.html.j2")
    return template.render(
        board=board,
        text=text,
        **players.shown(_players(board, place.parent), board.seeds, board.metrics),
        scatter=scatter(board),
        folders={
            row.name: [(o.seed, _relative(o.folder, place.parent)) for o in row.measured]
            for row in board.lines
            if row.trained
        },
        settings=yaml.safe_dump(shared, sort_keys=False, allow_unicode=True),
        own=[
            (row.name, yaml.safe_dump(dict(row.settings), sort_keys=False, allow_unicode=True)) for row in board.lines
        ],
        versions=board.facts.get("versions", {}),
        licences=[(name, said, bool(report.NON_COMMERCIAL.search(said))) for name, said in board.licences.items()],
    )


def scatter(board: Board) -> str:
    """The change of quality over that of motion, each with its interval: SVG, the same bytes for the same numbers.

    Nothing where a metric is missing.
    """
    shown = [row for row in board.lines if {"motion", board.rank_by} <= set(row.changes)]
    if not shown or board.rank_by is None:
        return ""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.add_subplot()
    axis.axhline(0, color="#888888", linewidth=0.8)
    axis.axvline(0, color="#888888", linewidth=0.8)
    for i, row in enumerate(shown):
        x, y, name = row.changes["motion"], row.changes[board.rank_by], text.label(row.name)
        colour = matplotlib.colormaps["tab10"](i % 10)
        axis.plot([x.low, x.high], [y.difference] * 2, color=colour, linewidth=1.2)
        axis.plot([x.difference] * 2, [y.low, y.high], color=colour, linewidth=1.2)
        axis.plot([x.difference], [y.difference], "osD^v"[i % 5], color=colour, markersize=6, label=name)
    axis.set_xlabel("change of motion, 95% interval", fontsize=8)
    axis.set_ylabel(f"change of {board.rank_by}, 95% interval", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "vpo"}):  # else the names inside are drawn by chance
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    found = buffer.getvalue()
    return found[found.index("<svg") :]


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
