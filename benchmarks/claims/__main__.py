"""``python -m benchmarks.claims NAME [--work DIR]``: `sets`, or one of the claims; it goes on where it was stopped.

Results go to ``benchmarks/results/claims/NAME.json`` and ``.png``; ``benchmarks/results/claims/README.md`` says in words what came out.
"""  # noqa: E501

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.claims import compared, judges, longrun, memory, sets
from benchmarks.claims.catalogue import CLAIMS

OTHERS: dict[str, Callable[[Path], None]] = {
    "sets": sets.make, "judges": judges.run, "longrun": longrun.run, "memory": memory.run,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*OTHERS, *CLAIMS])
    parser.add_argument("--work", type=Path, default=Path("runs/claims"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.name in OTHERS:
        OTHERS[given.name](given.work)
    else:
        compared.run(given.name, CLAIMS[given.name], given.work)


if __name__ == "__main__":
    main()
