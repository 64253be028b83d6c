"""What the parts of the day and the process that starts them say to each other: JSON, one object a line.

A part is a module with ``cases(options)``, the names of its cases with the seconds that each may take, the most
valuable first, and ``run(case, options)``, which returns what was found. It runs in worker processes, which take one
case at a time: a case that crashes, hangs or fills the card costs itself and a restart, and no other case. A part
may also have ``spent()``: whether its process is to be replaced after a case.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """What every part is told: whether this is a rehearsal, a scratch folder, and what the command line chose.

    `families` names the tiny pipelines (none: all), `cases` is in the name of the real architectures' cases, `models`
    are folders of published pipelines, `jobs` command lines.
    """

    rehearse: bool
    scratch: Path
    families: tuple[str, ...] = ()
    cases: str = ""
    models: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()

    def dump(self) -> str:
        return json.dumps({**asdict(self), "scratch": str(self.scratch)})

    @staticmethod
    def load(text: str) -> Options:
        found = json.loads(text)
        lists = {name: tuple(found[name]) for name in ("families", "models", "jobs")}
        return Options(**{**found, **lists, "scratch": Path(found["scratch"])})


def line(**values: Any) -> bytes:
    return (json.dumps(values) + "\n").encode()
