"""What people said of a board's rows in a study (`vpo study`): ``people.json`` beside the board's other files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from vpo_kit import files
from vpo_kit.errors import DataError

FILE = "people.json"


@dataclass(frozen=True, kw_only=True)
class PeopleSay:
    """A row against the base in one dimension: the share of wins, ties as half, with its 95% interval."""

    win_rate: float
    low: float
    high: float
    verdicts: int
    raters: int

    @property
    def significant(self) -> bool:
        return self.low > 0.5 or self.high < 0.5

    def __str__(self) -> str:
        return f"{self.win_rate:.0%} [{self.low:.0%}, {self.high:.0%}]{'*' if self.significant else ''}"


ByRow = Mapping[str, Mapping[str, PeopleSay]]
"""What people say of each row, dimension by dimension."""


def write(folder: Path, said: ByRow) -> None:
    """Raises `OutputError`."""
    files.write(folder / FILE, TypeAdapter(ByRow).dump_json(said, indent=1).decode() + "\n")


def read(folder: Path) -> ByRow:
    """Nothing where people have not been asked. Raises `DataError` for a file that cannot be read."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        return TypeAdapter(dict[str, dict[str, PeopleSay]]).validate_python(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: vpo study --finish writes it anew: {error}") from error
