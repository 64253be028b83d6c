"""Judges against people with each prompt left out in turn: ``python -m benchmarks.left_out FOLDER BENCH.json``.

From the scores that ``vpo reward bench FOLDER --output BENCH.json`` keeps beside its result: for each dimension the
least and the most accurate of what is left of a judge, and whether it stays above less motion whichever prompt is left
out. Writes ``benchmarks/results/judged/BENCH.json``: the bench's own result with this and with the facts beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import facts
from vpo_kit.judged import against_people
from vpo_kit.judged.reader import read
from vpo_kit.judged.scores import MOTION, Cache, key_of
from vpo_kit.judged.sets import JudgedSet
from vpo_kit.library.judge_bench import LESS_MOTION


def by_prompt(found: JudgedSet, scores: dict[int, float], dimension: str) -> dict[str, list[float]]:
    """By prompt: 1 for each decided pair in people's order, 0 against it, a half for equal scores."""
    rows: dict[str, list[float]] = {}
    for pair in found.pairs:
        if verdict := pair.verdicts.get(dimension, 0):
            margin = np.array([scores[pair.first] - scores[pair.second]])
            right = against_people.accuracy(margin, np.array([verdict]))
            rows.setdefault(found.clips[pair.first].prompt, []).append(right)
    return rows


def without(rows: dict[str, list[float]]) -> list[float]:
    """The accuracy without each prompt in turn."""
    return [float(np.mean([x for other, row in rows.items() if other != prompt for x in row])) for prompt in rows]


def measure(found: JudgedSet, scores: dict[str, dict[int, float]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for dimension in found.dimensions:
        still = without(by_prompt(found, scores[LESS_MOTION], dimension))
        for name, own in scores.items():
            left = without(by_prompt(found, own, dimension))
            table.setdefault(dimension, {})[name] = {
                "least": round(min(left), 4),
                "most": round(max(left), 4),
                "above less motion": sum(a > b for a, b in zip(left, still, strict=True)),
                "of": len(left),
            }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("bench", type=Path)
    given = parser.parse_args()
    found, cache = read(given.folder), Cache(given.bench.with_suffix(".scores.jsonl"))
    bench = json.loads(given.bench.read_text(encoding="utf-8"))
    (own,) = bench["sets"]
    keys = [key_of(clip) for clip in found.clips]
    kept = {judge.split()[0]: judge for judge in cache.judges}
    scores = {
        name: {i: (cache.get(key, kept[name]) or {})["score"] for i, key in enumerate(keys)} for name in own["probes"]
    }
    scores[LESS_MOTION] = {i: -(cache.get(key, MOTION) or {})["score"] for i, key in enumerate(keys)}
    named = " ".join(f"--reward {name}" for name in own["probes"])
    command = f"vpo reward bench FOLDER {named} --output BENCH.json; python -m benchmarks.left_out FOLDER BENCH.json"
    facts.write(f"judged/{given.bench.stem}", {**bench, "command": command, "left out": measure(found, scores)})


if __name__ == "__main__":
    main()
