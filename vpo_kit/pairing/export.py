"""Pairs for other trainers, for other tools, and for the Hugging Face Hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from vpo_kit import files
from vpo_kit.errors import DataError
from vpo_kit.judged.shapes import JUDGED, SHARE
from vpo_kit.pairing.origins import by_labeller
from vpo_kit.pairing.store import PairSet


@dataclass(frozen=True)
class Exported:
    """Rows to write, and how many pairs were left out because of their whole-clip label or a missing video."""

    rows: list[dict[str, str]]
    ties: int
    unlabelled: int
    missing: list[str]


def trl(found: PairSet) -> Exported:
    """``prompt``, ``chosen``, ``rejected`` of every pair with a winner: TRL's preference columns.

    The videos are absolute paths: TRL and `datasets` take a path in a JSON file relative to the working directory, not
    to that file.
    """
    rows, missing = [], []
    for pair in found.pairs:
        videos = [found.path.resolve() / name for name in (pair.first_file_name, pair.second_file_name)]
        gone = [file for file in videos if not file.is_file()]
        if not pair.label:
            continue
        if gone:
            missing.append(f"{pair.id}: {gone[0]} is missing")
            continue
        chosen, rejected = videos if pair.label > 0 else reversed(videos)
        rows.append({"prompt": pair.prompt, "chosen": str(chosen), "rejected": str(rejected)})
    labels = [pair.label for pair in found.pairs]
    return Exported(rows, labels.count(0), labels.count(None), missing)


WORDS = {1: "first", -1: "second", 0: "tie"}


def table(found: PairSet, beside: Path) -> Exported:
    """Two paths and a verdict of every labelled pair, relative to the folder `beside`: the layout ``pairs``, which
    `vpo pair import` reads. Every dimension that people judged has a column of its own, ``judged: NAME``, and where
    votes were counted another one, ``share: NAME``.
    """
    rows, missing = [], []
    dimensions = list(dict.fromkeys(name for pair in found.pairs for name in pair.judged or ()))
    counted = list(dict.fromkeys(name for pair in found.pairs for name in pair.shares or ()))
    for pair in found.pairs:
        judged = {f"{JUDGED}{name}": (pair.judged or {}).get(name) for name in dimensions}
        shares = {f"{SHARE}{name}": (pair.shares or {}).get(name) for name in counted}
        if pair.label is None and not any(value is not None for value in judged.values()):
            continue
        videos = [found.path.resolve() / name for name in (pair.first_file_name, pair.second_file_name)]
        if gone := [file for file in videos if not file.is_file()]:
            missing.append(f"{pair.id}: {gone[0]} is missing")
            continue
        first, second = (Path(os.path.relpath(file, beside.resolve())).as_posix() for file in videos)
        models = dict(zip(("first_model", "second_model"), pair.models or ("", ""), strict=True))
        said = {name: "" if value is None else WORDS[value] for name, value in judged.items()}
        said |= {name: "" if value is None else str(value) for name, value in shares.items()}
        verdict = "" if pair.label is None else WORDS[pair.label]
        rows.append({"prompt": pair.prompt, "first": first, "second": second, "verdict": verdict, **models, **said})
    return Exported(rows, 0, len(found.pairs) - len(rows) - len(missing), missing)


def hub(found: PairSet, output: Path) -> Exported:
    """A folder for the Hugging Face Hub: ``pairs.parquet`` with the rows of `table`, ``videos``, and a card.

    Raises `DataError` where pyarrow is missing, `OutputError`.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError("--format hub writes parquet, which needs pyarrow: pip install 'vpo-kit[parquet]'") from error
    made = table(found, found.path)
    with files.beside(output) as partial:
        for name in dict.fromkeys(row[who] for row in made.rows for who in ("first", "second")):
            files.link(found.path / name, partial / name)
        partial.mkdir(exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(made.rows), partial / "pairs.parquet")
        (partial / "README.md").write_text(_card(found, made, output.name), encoding="utf-8")
    return made


def _card(found: PairSet, made: Exported, name: str) -> str:
    """What the Hub shows of the folder; the licence is not ours to say."""
    front = {
        "pretty_name": name,
        "task_categories": ["text-to-video"],
        "tags": ["preferences", "video"],
        "configs": [{"config_name": "default", "data_files": "pairs.parquet"}],
    }
    facts = found.facts
    counts = {word: sum(row["verdict"] == word for row in made.rows) for word in WORDS.values()}
    lines = [
        f"# {name}",
        "",
        f"{len(made.rows)} pairs of videos with verdicts ({', '.join(f'{w} {n}' for w, n in counts.items())}); "
        f"`first` and `second` are files of this folder.",
        "",
        f"- made by: {facts.get('model') or facts.get('layout', 'unknown')}",
        f"- source: {facts.get('source') or facts.get('data', 'unknown')}",
        f"- labels: {by_labeller(found.pairs) or 'none'}",
        "- licence: not stated; that of the videos is their makers'",
    ]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n" + "\n".join(lines) + "\n"
