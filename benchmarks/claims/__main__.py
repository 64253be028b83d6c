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

from benchmarks.claims import compared, design, judges, longrun, matrix, memory, pilot, sets

OTHERS: dict[str, Callable[[Path], None]] = {
    "sets": sets.make, "judges": judges.run, "longrun": longrun.run, "memory": memory.run,
}  # fmt: skip


def main() -> None:
    planned = design.read()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["all", "design", "pilot", "waiting", *OTHERS, *planned.boards])
    parser.add_argument("--work", type=Path, default=Path("runs/claims"))
    parser.add_argument("--brief", action="store_true")
    given = parser.parse_args()
    if given.name == "design":
        design.show(planned)
        return
    if given.name == "pilot":
        pilot.run(given.work)
        return
    given.work.mkdir(parents=True, exist_ok=True)
    boards = compared.Boards(work=given.work, design=planned, brief=given.brief)
    if given.name == "waiting":
        compared.settle(boards)
        return
    for name in [*OTHERS, *planned.boards] if given.name == "all" else [given.name]:
        if name in planned.boards:
            compared.run(name, boards)
            if name in matrix.BOARDS and not given.brief:
                matrix.write(boards)
        elif not (given.brief and given.name == "all" and name != "sets"):
            OTHERS[name](given.work)


if __name__ == "__main__":
    main()
