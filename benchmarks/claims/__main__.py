"""``python -m benchmarks.claims NAME [--work DIR] [--brief]``: `sets`, `design`, or what decides claims.

`decide` decides all claims of the boards that were run once more, from the scores that are kept, and runs nothing;
`pilot` reads the variances of `benchmarks.learning.board`, whose folder `--work` is.

A name is one of the boards of ``design.yaml``, or one of `judges` and `memory`, which are no comparisons; `all` is
everything in order. Each makes the sets that it needs and goes on where it was stopped. Results go to
``results/claims/NAME.json`` and ``.png``; ``results/claims/README.md`` says in words what came out. ``--brief`` takes a
tenth of the steps and of the clips, 16 prompts and half the seeds, in the folder ``brief`` of the work folder, and
prints.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.claims import compared, design, judges, matrix, memory, page, pilot, sets
from benchmarks.claims.boards import Boards
from vpo_kit import files

OTHERS: dict[str, Callable[[Boards], None]] = {"judges": judges.run, "memory": memory.run}


def main() -> None:
    planned = design.read()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["all", "design", "pilot", "sets", "decide", *OTHERS, *planned.boards])
    parser.add_argument("--work", type=Path, default=Path("runs/claims"), help="sets and boards (runs/claims)")
    parser.add_argument("--brief", action="store_true", help="a tenth of it, which shows that it runs")
    given = parser.parse_args()
    if given.name == "design":
        design.show(planned)
    elif given.name == "pilot":
        pilot.run(given.work)
    else:
        work = given.work / "brief" if given.brief else given.work
        _run(given.name, Boards(work=work, design=planned, brief=given.brief))


def _run(name: str, boards: Boards) -> None:
    """Run a board or what is beside them, or all, and say what its claims came to."""
    planned = boards.design
    if name == "all":
        for one in [*OTHERS, *planned.boards]:
            _run(one, boards)
    elif name == "sets":
        boards.make_sets(sets.EVERY)
    elif name == "decide":
        compared.settle(boards)
    elif name in OTHERS:
        OTHERS[name](boards)
    else:
        compared.run(name, boards)
    if not boards.brief:
        with files.held(boards.work):  # as another command may be at the same place
            if name in matrix.BOARDS:
                matrix.write(boards)
            page.short(planned)


if __name__ == "__main__":
    main()
