"""Answers in the files of versions up to 0.2, taken over into the one store; nothing of them is deleted.

Those were ``.people/answers.sqlite`` (people), ``.cache/vlm.jsonl`` (models) and ``.labels/*.json`` (scores of a
labelling that was stopped). They are read in one transaction, so a kill leaves all or nothing, and moved to
``.answers/before`` when that is on disk; read twice, they add nothing.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vpo_kit.errors import DataError, OutputError, VpoError
from vpo_kit.labelling.answers import FILE, FOLDER, PEOPLE, SCORES, VLM, WAIT_S, Store
from vpo_kit.labelling.base import recut
from vpo_kit.labelling.keys import score_key
from vpo_kit.labelling.vlm.answers import Record
from vpo_kit.pairing import store as sets

PEOPLES, MODELS, LABELS = Path(".people", FILE), Path(".cache", "vlm.jsonl"), Path(".labels")
TOKEN = Path(".people", "token")
BEFORE = "before"
LONG_S = 60.0
"""Seconds to wait for another process that is taking over."""
OLD_APPLICATION = 0x76706F31  # "vpo1"
ROWS = (
    "SELECT a.key, a.annotator, a.pair, a.start, a.stop, a.videos, a.choice, a.swapped, a.seconds, a.given, b.key "
    "FROM answers a LEFT JOIN answers b ON a.undoes = b.number ORDER BY a.number"
)


def opened(
    folder: Path, *, create: bool = True, wait_s: float = WAIT_S, say: Callable[[str], None] = lambda line: None
) -> Store:
    """The store of the set in `folder`, after older files there were taken over; `say` gets a line with the counts.

    Raises `DataError` for a store or an older file that is damaged, or where without `create` there is neither.
    """
    old = [path for path in (PEOPLES, MODELS, LABELS) if (folder / path).exists()]
    if not old:
        _move(folder, [TOKEN])
        return Store(folder, create=create, wait_s=wait_s)
    with closing(Store(folder, wait_s=LONG_S)) as store:
        with store.writing():
            counts = {
                "answers of people": _people(store),
                "answers of models": _models(store),
                "scores": _scores(store),
            }
        with store.writing():  # no other process reads them now
            _move(folder, [TOKEN, *old])
    if any(new for new, _ in counts.values()):
        taken = ", ".join(f"{new} {what}" for what, (new, _) in counts.items())
        left = sum(unread for _, unread in counts.values())
        rest = f"; {left} that cannot be read stay there" if left else ""
        say(f"{folder}: taken over from files of an older version: {taken}; the files lie in {FOLDER}/{BEFORE}{rest}")
    return Store(folder, wait_s=wait_s)


def _people(store: Store) -> tuple[int, int]:
    """How many answers are new, and how many could not be read (none: a damaged file is refused)."""
    path = store.folder / PEOPLES
    if not path.is_file():
        return 0, 0
    try:
        with closing(sqlite3.connect(path, LONG_S)) as file:
            (kind,) = file.execute("PRAGMA application_id").fetchone()
            if kind != OLD_APPLICATION and file.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
                raise DataError(f"{path} holds something else than answers of an older version: move it away")
            rows = file.execute(ROWS).fetchall() if kind == OLD_APPLICATION else []
            settings = file.execute("SELECT json FROM settings").fetchone() if kind == OLD_APPLICATION else None
            gold = file.execute("SELECT pair, start, stop, videos, label FROM gold").fetchall() if rows else []
    except sqlite3.OperationalError as error:
        raise OutputError(f"cannot read {path}: {error}") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged or no file of answers: {error}") from error
    if settings and store.noted(PEOPLE, "settings") is None:
        store.note(PEOPLE, "settings", _object(settings[0], path))
    if gold and store.noted(PEOPLE, "gold") is None:
        store.note(PEOPLE, "gold", {"answers": [list(row) for row in gold]})
    new = 0
    for key, annotator, pair, start, stop, videos, choice, swapped, seconds, given, undoes in rows:
        content = {
            "annotator": annotator,
            "pair": pair,
            "start": start,
            "end": stop,
            "videos": videos,
            "choice": choice,
            "swapped": bool(swapped),
            "seconds": seconds,
            "undoes": undoes,
        }
        new += store.add(PEOPLE, str(key), content, str(given))
    return new, 0


def _models(store: Store) -> tuple[int, int]:
    path, new, unread = store.folder / MODELS, 0, 0
    try:
        lines = path.read_bytes().splitlines() if path.is_file() else []
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}") from error
    for line in lines:
        try:
            record = Record.model_validate_json(line)
        except ValidationError:
            unread += bool(line.strip())  # a kill cut it short
            continue
        new += store.add(VLM, record.key, record.model_dump(mode="json", exclude={"key"}))
    return new, unread


def _scores(store: Store) -> tuple[int, int]:
    """Take the scores over; those of pairs that are gone stay where they are moved to, counted as unread."""
    path = store.folder / LABELS
    try:
        stamp = json.loads((path / "settings.json").read_text(encoding="utf-8"))
        seconds = stamp["settings"]["segment_seconds"]
        pairs = {pair.id: recut(pair, seconds) for pair in sets.read(store.folder).pairs}
    except (OSError, ValueError, KeyError, TypeError, VpoError):
        return 0, len(list(path.glob("*.json")))
    if store.rows(SCORES):  # a labelling of this version is under way
        return 0, 0
    new = unread = 0
    for part in sorted(path.glob("*.json")):
        if part.name == "settings.json":
            continue
        try:
            new += store.add(SCORES, score_key(pairs[part.stem]), _object(part.read_text(encoding="utf-8"), part))
        except (KeyError, OSError, UnicodeDecodeError, DataError):
            unread += 1
    if new:
        store.note(SCORES, "stamp", stamp)
    return new, unread


def _object(text: Any, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: it holds what is no JSON") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is damaged: it holds what is no object")
    return found


def _move(folder: Path, names: list[Path]) -> None:
    """Move old files into the store's folder: the token as it is, all else aside, where a name that is taken gets a
    number.
    """
    for name in names:
        source = folder / name
        if not source.exists():
            continue
        kept = folder / FOLDER / name.name if name == TOKEN else _free(folder / FOLDER / BEFORE, name)
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, kept)
            if source.parent != folder and not any(source.parent.iterdir()):
                source.parent.rmdir()
        except FileNotFoundError:  # another process was faster
            continue
        except OSError as error:
            raise OutputError(f"cannot move {source} to {kept}: {error.strerror or error}") from error


def _free(folder: Path, name: Path) -> Path:
    """The new name, ``people-answers.sqlite`` of ``.people/answers.sqlite``, with a number before it where that is
    taken.
    """
    plain = "-".join(part.strip(".") for part in name.parts)
    number = 1
    while (folder / (found := plain if number == 1 else f"{number}-{plain}")).exists():
        number += 1
    return folder / found
