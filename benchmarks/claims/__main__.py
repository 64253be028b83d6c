"""``python -m benchmarks.claims NAME [--work DIR] [--brief]``: `sets`, `design`, or what decides claims.

`waiting` decides what waited for another board, from the results that are there; `pilot` reads the variances of
`benchmarks.learning.board`, whose folder `--work` is.

A name is one of the boards of ``design.yaml``, or one of `judges`, `longrun` and `memory`, which are no comparisons;
`all` is everything in order. Each goes on where it was stopped. Results go to ``results/claims/NAME.json`` and
``.png``; ``results/claims/README.md`` says in words what came out. ``--brief`` runs boards with a tenth of the steps,
16 prompts and two seeds, and only prints.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.claims import compared, design, judges, longrun, matrix, memory, page, pilot, sets
from benchmarks.claims.design import Design

OTHERS: dict[str, Callable[[Path, Design], None]] = {
    "judges": judges.run,
    "memory": memory.run,
    "longrun": longrun.run,
}


def main() -> None:
    planned = design.read()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["all", "design", "pilot", "sets", "waiting", *OTHERS, *planned.boards])
    parser.add_argument("--work", type=Path, default=Path("runs/claims"))
    parser.add_argument("--brief", action="store_true")
    given = parser.parse_args()
    if given.name == "design":
        design.show(planned)
    elif given.name == "pilot":
        pilot.run(given.work)
    else:
        given.work.mkdir(parents=True, exist_ok=True)
        _decide(given.name, compared.Boards(work=given.work, design=planned, brief=given.brief))


def _decide(name: str, boards: compared.Boards) -> None:
    """Run a board or what is beside them, or all, and say what its claims came to."""
    planned = boards.design
    if name == "all":
        for one in ["sets", *(() if boards.brief else OTHERS), *planned.boards]:
            _decide(one, boards)
    elif name == "sets":
        sets.make(boards.work)
    elif name == "waiting":
        compared.settle(boards)
    elif name in OTHERS:
        OTHERS[name](boards.work, planned)
    else:
        compared.run(name, boards)
        if name in matrix.BOARDS and not boards.brief:
            matrix.write(boards)
    if not boards.brief:
        page.short(planned)


if __name__ == "__main__":
    main()
