"""Foreign rows that are no table of two files and a verdict, or of one file and scores, brought into that shape.

Rows are text (`table`); what was a list or a mapping in the file is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vpo_kit.judged.table import Row

SHARES = "shares"
"""The column with the share of votes for the first video, by dimension, as JSON."""
JUDGED, SHARE = "judged: ", "share: "
"""How the columns of an exported table begin that hold the verdicts, and the shares, in a dimension each."""
NOTHING = frozenset({"", "-", "nan", "n/a", "#n/a", "na", "<na>", "none", "null"})
"""What other programs write into a cell that holds no score and no verdict, in small letters."""


def mapping(text: str) -> dict[str, Any] | None:
    """A JSON object, or None for any other text."""
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no name
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def pair_set(rows: Sequence[Row]) -> list[Row]:
    """Our own pair sets: people's verdicts by dimension where there are any, else the whole clip's label."""
    found = []
    for row in rows:
        own = {key: row[key] for key in ("prompt", "first_file_name", "second_file_name", SHARES) if key in row}
        judged, label = row.get("judged", ""), row.get("label", "")
        if all(map(is_nothing, dimensions(judged, "judged").values())):
            judged = json.dumps({"label": label}) if label else ""
        models = _listed(row.get("models", "")) or ["", ""]
        found.append({**own, "judged": judged, "first_model": str(models[0]), "second_model": str(models[-1])})
    return found


def by_dimension(rows: Sequence[Row]) -> list[Row]:
    """What `vpo pair export` writes: people's verdicts in columns of their own become one mapping, in place of the
    label, which may be another labeller's; and so do the shares of votes.
    """
    found = []
    for row in rows:
        judged, shares = _cells(row, JUDGED), _cells(row, SHARE)
        own = {"verdict": json.dumps(judged)} if judged else {}
        if shares:
            values = {name: number(text) for name, text in shares.items()}
            own[SHARES] = json.dumps({name: shares[name] if value is None else value for name, value in values.items()})
        found.append({**row, **own})
    return found


def vote_shares(rows: Sequence[Row]) -> list[Row]:
    """Rapidata's: the weighted votes for either video, by dimension (``weighted_results1_Preference``, ...)."""
    begin, other = "weighted_results1_", "weighted_results2_"
    found = []
    for row in rows:
        judged: dict[str, int | str] = {}
        shares: dict[str, float] = {}
        for name in (key.removeprefix(begin) for key in row if key.startswith(begin)):
            votes = (row[begin + name], row.get(other + name, ""))
            first, second = map(number, votes)
            if any(map(is_nothing, votes)) or first == second == 0:
                continue
            if first is None or second is None or min(first, second) < 0:
                judged[name] = " against ".join(votes)  # no verdict: the reader names the row
                continue
            judged[name] = (first > second) - (first < second)
            shares[name] = round(first / (first + second), 6)
        found.append({**row, "judged": json.dumps(judged) if judged else "", SHARES: json.dumps(shares)})
    return found


def numbered(rows: Sequence[Row]) -> list[Row]:
    """VideoDPO's: videos are numbers, even ones in ``winvideos``, odd ones in ``losevideos``; the first one wins."""

    def path(text: str) -> str:
        if not text.isdecimal():
            return text
        number = int(text)
        return f"{'losevideos' if number % 2 else 'winvideos'}/{number // 2:06d}.mp4"

    videos = [{name: path(row.get(name, "")) for name in ("video1", "video2")} for row in rows]
    return [{**row, **own, "verdict": "first"} for row, own in zip(rows, videos, strict=True)]


def by_model(rows: Sequence[Row]) -> list[Row]:
    """GenAI-Bench-Video's: every prompt with the ratings of each model's video, ``MODEL/ID.mp4``; their mean counts."""
    found = []
    for row in rows:
        # a row without models has one that is not rated, by which the reader names it
        for model, ratings in (mapping(row.get("models", "")) or {"": []}).items():
            given = [str(value) for value in (ratings if isinstance(ratings, list) else [ratings])]
            file = f"{model}/{row['id']}.mp4" if row.get("id") else ""
            found.append({"file": file, "prompt": row.get("prompt", ""), "model": model, "rating": _mean(given)})
    return found


def is_nothing(text: str) -> bool:
    """Whether a cell says that it holds nothing."""
    return text.strip().lower() in NOTHING


def number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if abs(found) < float("inf") else None


def dimensions(text: str, name: str) -> Mapping[str, str]:
    """A cell's values by dimension: those of a mapping, or the cell's own under its column's `name`."""
    found = mapping(text)
    if found is None:
        return {name: text} if text else {}
    return {str(key): str(value) for key, value in found.items() if value is not None and value != ""}


def _mean(ratings: Sequence[str]) -> str:
    """The mean, nothing where there are none, or the first that is no number, by which the reader names the row."""
    known = []
    for text in ratings:
        if is_nothing(text):
            continue
        if (value := number(text)) is None:
            return text
        known.append(value)
    return str(sum(known) / len(known)) if known else ""


def _cells(row: Row, begin: str) -> dict[str, str]:
    """What columns hold, where it is something, by how they are called behind `begin`."""
    named = {key.removeprefix(begin): cell for key, cell in row.items() if key.startswith(begin)}
    return {name: cell for name, cell in named.items() if not is_nothing(cell)}


def _listed(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []
