"""Pairs for other trainers."""

from __future__ import annotations

from dataclasses import dataclass

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
        files = [found.path.resolve() / name for name in (pair.first_file_name, pair.second_file_name)]
        gone = [file for file in files if not file.is_file()]
        if not pair.label:
            continue
        if gone:
            missing.append(f"{pair.id}: {gone[0]} is missing")
            continue
        chosen, rejected = files if pair.label > 0 else reversed(files)
        rows.append({"prompt": pair.prompt, "chosen": str(chosen), "rejected": str(rejected)})
    labels = [pair.label for pair in found.pairs]
    return Exported(rows, labels.count(0), labels.count(None), missing)
