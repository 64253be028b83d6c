"""Judges set against people's verdicts and ratings, on sets in other people's layouts."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vpo_kit import __version__, files
from vpo_kit.errors import ConfigError
from vpo_kit.evaluation.report import versions
from vpo_kit.judged import against_people
from vpo_kit.judged.disagreement import DisagreementSection, page
from vpo_kit.judged.layouts import Reading
from vpo_kit.judged.reader import read
from vpo_kit.judged.scores import Cache, JudgedScores, score
from vpo_kit.judged.sets import JudgedSet
from vpo_kit.library import judge_tables
from vpo_kit.library.display import count_bar
from vpo_kit.models.cache import weights_hash
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Reward

LESS_MOTION, RANDOM, GENERATORS = "minus motion", "random", "best order of the generators"


class JudgeBench:
    """Several judges on several sets: `each` scores the clips set by set, `write` says what came of it."""

    def __init__(
        self,
        sources: Sequence[Path],
        names: Sequence[str],
        settings: Mapping[str, Any],
        reading: Reading | None = None,
        dimensions: Sequence[str] = (),
    ) -> None:
        """`settings` are those of the judge, of several judges by name. Raises `ConfigError` and `DataError` before a
        weight is loaded.
        """
        plans = rewards.plan("+".join(names), settings)
        self._sets = [read(source, reading) for source in sources]
        self._dimensions = [_dimensions(one, dimensions) for one in self._sets]
        self._judges = rewards.load(plans, torch.device("cpu")).parts
        self._facts: list[dict[str, Any]] = []
        self._sections: list[DisagreementSection] = []

    def each(self, output: Path, console: Console) -> Iterator[Mapping[str, Any]]:
        """The facts of set after set, when its clips have been scored; scores are kept beside `output`."""
        keyed = {_identity(judge): judge for judge in self._judges}
        cache = Cache(output.with_suffix(".scores.jsonl"))
        for one, own in zip(self._sets, self._dimensions, strict=True):
            with count_bar(console, one.name, len(one.clips), "clips") as tick:
                scored, wrong = score(one.clips, keyed, cache, tick)
            short = {key: judge.spec.name for key, judge in keyed.items()}
            self._facts.append(_facts(one, scored, [*one.passed_over, *one.left_out, *wrong], own, short))
            yield self._facts[-1]
            for key, judge in keyed.items():
                scores = [seen.scores[key] if seen else float("nan") for seen in scored]
                self._sections += [DisagreementSection(one, judge.spec.name, dimension, scores) for dimension in own]

    def write(self, output: Path) -> list[Path]:
        """Write `output`, a .json file, and beside it Markdown, LaTeX and a page of the most disagreed pairs, whose
        paths are returned.
        """
        licences = {judge.spec.name: judge.spec.licence for judge in self._judges}
        whole = {"command": "vpo reward bench", "licences": licences, "versions": versions(), "sets": self._facts}
        files.write(output, json.dumps(whole, indent=1) + "\n")
        beside = {
            ".md": "\n".join(judge_tables.markdown(one) for one in self._facts),
            ".tex": "\n".join(judge_tables.latex(one) for one in self._facts),
            ".html": page(self._sections, output),
        }
        for suffix, text in beside.items():
            files.write(output.with_suffix(suffix), text)
        return [output.with_suffix(suffix) for suffix in beside]


def _dimensions(found: JudgedSet, asked: Sequence[str]) -> list[str]:
    unknown = [name for name in asked if name not in found.dimensions]
    if unknown:
        raise ConfigError(f"{found.name} has no dimension {unknown[0]!r} (it has {', '.join(found.dimensions)})")
    return list(asked) or found.dimensions


def _identity(judge: Reward) -> str:
    """A judge with other settings, other weights or of another version is another one to the cache."""
    whole = f"{__version__} {judge.config.model_dump_json()} {weights_hash(judge)}"
    return f"{judge.spec.name} {hashlib.sha256(whole.encode()).hexdigest()[:16]}"


def _facts(
    found: JudgedSet,
    scored: Sequence[JudgedScores | None],
    left_out: Sequence[str],
    dimensions: Sequence[str],
    short: Mapping[str, str],
) -> dict[str, Any]:
    nan = float("nan")
    by_judge = {name: [one.scores[key] if one else nan for one in scored] for key, name in short.items()}
    by_judge[LESS_MOTION] = [-one.motion if one else nan for one in scored]
    # by name and place: the same on every machine, and no order of the set's own
    by_judge[RANDOM] = [
        int(hashlib.sha256(f"{clip.path.name} {i}".encode()).hexdigest()[:8], 16) if one else nan
        for i, (clip, one) in enumerate(zip(found.clips, scored, strict=True))
    ]
    table: dict[str, Any] = {}
    for dimension in dimensions:
        rows = {name: against_people.measures(found, scores, dimension) for name, scores in by_judge.items()}
        if (order := against_people.generators(found, dimension)) is not None:
            # on the clips that the judges have seen, as everything in the table
            order = [score if one else nan for score, one in zip(order, scored, strict=True)]
            rows[GENERATORS] = against_people.measures(found, order, dimension)
        table[dimension] = {name: {key: asdict(one) for key, one in row.items()} for name, row in rows.items()}
    seen = [one for one in scored if one]
    probes = {
        name: {
            "prefers a frozen clip": round(statistics.mean(one.frozen[key] > one.scores[key] for one in seen), 4),
            "seconds a video": round(statistics.median(one.seconds[key] for one in seen), 3),
        }
        for key, name in short.items()
        if seen
    }
    return {
        "name": found.name,
        "clips": len(found.clips),
        "read": len(seen),
        "pairs": len(found.pairs),
        "prompts": len({clip.prompt for clip in found.clips}),
        "left_out": list(left_out),
        "dimensions": table,
        "probes": probes,
    }
