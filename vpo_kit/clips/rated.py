"""What people said of single clips: ratings, verdicts, and the scores of an imported set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from vpo_kit.clips.captions import listed
from vpo_kit.errors import DataError

VERDICTS = {"good": 1.0, "up": 1.0, "true": 1.0, "bad": 0.0, "down": 0.0, "false": 0.0}
"""What a verdict may be called, with the rating that it is read as."""
OVERALL = ("overall", "all", "overall_preference")
"""Dimensions, in small letters, that stand for all where there are several."""


def overall_of(dimensions: Sequence[str]) -> str | None:
    """The dimension that stands for all: the only one, or the overall one."""
    if len(dimensions) == 1:
        return dimensions[0]
    return next((name for wanted in OVERALL for name in dimensions if name.lower() == wanted), None)


def ratings(folder: Path, dimension: str | None = None) -> dict[str, float]:
    """What ``metadata.jsonl`` or ``metadata.csv`` says of each file: of an imported set its score in `dimension`, by
    default the only or the overall one, else its ``rating`` (a number) or its ``verdict`` (good or bad, up or down,
    true or false, read as 1 and 0). Files that have nothing are not there.

    Raises `DataError` for a word that is neither, and for a dimension that is not there, or that must be given.
    """
    _, rows = listed(folder)
    dimension = _dimension(folder, [scores for _, row in rows if (scores := _scores(row))], dimension)
    found: dict[str, float] = {}
    for _, row in rows:
        given = (_scores(row).get(dimension or ""), row.get("rating"), row.get("verdict"))
        value = next((value for value in given if value not in (None, "")), None)
        if value is not None:
            name = str(row["file_name"])
            found[name] = _number(value, f"{folder}: {name}")
    return found


def _scores(row: Mapping[str, object]) -> Mapping[str, object]:
    scores = row.get("scores")
    return scores if isinstance(scores, dict) else {}


def _dimension(folder: Path, scores: Sequence[Mapping[str, object]], asked: str | None) -> str | None:
    """The one that is asked for, the only one, or the overall one; None where the set has none."""
    known = list(dict.fromkeys(name for row in scores for name, value in row.items() if value is not None))
    has = f"{folder} is rated in {', '.join(known)}" if known else f"{folder} was not imported with people's scores"
    if asked is not None and asked not in known:
        raise DataError(f"data.dimension: there is no {asked!r}: {has}")
    if asked is None and known and overall_of(known) is None:
        raise DataError(f"{has}, and not overall: give data.dimension")
    return asked or overall_of(known)


def _number(value: object, what: str) -> float:
    word = str(value).strip().lower()
    try:
        found = VERDICTS[word] if word in VERDICTS else float(word)
        if not math.isfinite(found):
            raise ValueError
    except ValueError as error:
        raise DataError(f"{what} is rated {value!r}: give a number, or {', '.join(VERDICTS)}") from error
    return found
