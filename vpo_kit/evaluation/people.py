"""What people said of a board's or an evaluation's rows in a study: ``people.json`` beside the results."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from vpo_kit import files
from vpo_kit.errors import DataError
from vpo_kit.evaluation import tables

FILE = "people.json"
NONE = "none"
HEAD = ("row", "people on", "wins over the base", "log odds", "verdicts", "raters", "alpha")
CAPTION = (
    "People (vpo study): the share of wins over the base, a tie as half, and its log odds by Bradley and Terry, "
    "with 95% intervals over prompts and raters; * the interval leaves out one half. Verdicts and raters are the row's "
    "own, alpha is Krippendorff's of the whole study. A row that nobody judged has none."
)


@dataclass(frozen=True, kw_only=True)
class PeopleSay:
    """A row against the base in one dimension of a study: the share of wins, ties as half, and its log odds, each with
    its 95% interval. `verdicts` and `raters` are those of this row, `alpha` is the whole study's.
    """

    study: str
    """The name of the study's folder."""
    win_rate: float
    low: float
    high: float
    log_odds: float
    log_odds_low: float
    log_odds_high: float
    verdicts: int
    raters: int
    alpha: float | None

    @property
    def significant(self) -> bool:
        return self.low > 0.5 or self.high < 0.5

    @property
    def strength(self) -> str:
        """The log odds, ``+0.49 [+0.20, +0.85]``."""
        return f"{self.log_odds:+.2f} [{self.log_odds_low:+.2f}, {self.log_odds_high:+.2f}]"

    def __str__(self) -> str:
        return f"{self.win_rate:.0%} [{self.low:.0%}, {self.high:.0%}]{'*' if self.significant else ''}"


ByRow = Mapping[str, Mapping[str, PeopleSay]]
"""What people say of each row, dimension by dimension."""


def join(folder: Path, study: str, said: ByRow) -> list[str]:
    """Add what a study says to what others say there: rows that it does not have keep theirs. Returns the sentences on
    what it took the place of. Raises `OutputError`, and `DataError` for a file that cannot be read.
    """
    kept = {row: {name: one for name, one in of.items() if one.study != study} for row, of in read(folder).items()}
    lost = [f"{row}, {name}" for row, of in said.items() for name in of if name in kept.get(row, {})]
    found = {
        row: {**kept.get(row, {}), **said.get(row, {})} for row in (*kept, *(row for row in said if row not in kept))
    }
    found = {row: of for row, of in found.items() if of}
    files.write(folder / FILE, TypeAdapter(ByRow).dump_json(found, indent=1).decode() + "\n")
    return [f"in the place of what another study said: {'; '.join(lost)}"] if lost else []


def read(folder: Path) -> ByRow:
    """Nothing where people have not been asked. Raises `DataError` for a file that cannot be read."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        return TypeAdapter(dict[str, dict[str, PeopleSay]]).validate_python(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: move it away, and vpo study --finish writes it anew: {error}"
        ) from error


def dimensions(said: Iterable[Mapping[str, PeopleSay]]) -> list[str]:
    """Those in which people judged some row."""
    return list(dict.fromkeys(name for of in said for name in of))


def strangers(said: ByRow, rows: Iterable[str]) -> list[str]:
    """One sentence where people judged rows that are not there."""
    other = sorted(set(said) - set(rows))
    return [f"{FILE} also holds what people said of {', '.join(other)}, which is no row here"] if other else []


def cells(said: ByRow, rows: Collection[str]) -> list[list[str]]:
    """A line of the columns `HEAD` for each row and dimension, of text as it stands; nothing where nobody was asked."""
    names, found = dimensions(said.get(row, {}) for row in rows), []
    for row in rows:
        for name in names:
            one = said.get(row, {}).get(name)
            if one is None:
                found.append([row, name, NONE, "", "0", "0", ""])
            else:
                alpha = "not known" if one.alpha is None else f"{one.alpha:.2f}"
                found.append([row, name, str(one), one.strength, str(one.verdicts), str(one.raters), alpha])
    return found


def markdown(said: ByRow, rows: Collection[str]) -> list[str]:
    """The lines of a table and an empty one, or nothing where nobody was asked; `CAPTION` says what they are."""
    lines = [
        f"| {tables.markdown_text(row)} | {tables.markdown_text(name)} | {' | '.join(rest)} |"
        for row, name, *rest in cells(said, rows)
    ]
    head = [f"| {' | '.join(HEAD)} |", f"| --- | --- |{' ---: |' * (len(HEAD) - 2)}"]
    return [*head, *lines, ""] if lines else []


def latex(said: ByRow, rows: Collection[str]) -> list[str]:
    """The same with booktabs."""
    lines = cells(said, rows)
    return tables.booktabs(f"ll{'r' * (len(HEAD) - 2)}", HEAD, lines) if lines else []
