"""`vpo reward bench`: judges against people, on sets in other people's layouts."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vpo_kit import __version__, config, files
from vpo_kit.errors import ConfigError
from vpo_kit.evaluation.report import versions
from vpo_kit.evaluation.tables import latex_text, markdown_text
from vpo_kit.judged import against_people
from vpo_kit.judged.against_people import PromptInterval
from vpo_kit.judged.disagreement import DisagreementSection, page
from vpo_kit.judged.layouts import Reading
from vpo_kit.judged.reader import read
from vpo_kit.judged.scores import Cache, JudgedScores, score
from vpo_kit.judged.sets import JudgedSet
from vpo_kit.library.display import count_bar
from vpo_kit.models.cache import weights_hash
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Reward

LESS_MOTION, RANDOM, GENERATORS = "minus motion", "random", "best order of the generators"
SHOWN_LEFT_OUT = 10


def run(
    sources: Sequence[Path],
    names: Sequence[str],
    output: Path,
    assignments: Sequence[str],
    reading: Reading | None = None,
    dimensions: Sequence[str] = (),
) -> None:
    """Score every clip, print a table for each set and dimension, and write ``OUTPUT``, with Markdown, LaTeX and a page
    of the most disagreed pairs beside it.

    Raises `ConfigError` and `DataError` before a weight is loaded.
    """
    if output.suffix != ".json":
        raise ConfigError(f"--output {output}: give the name of a .json file")
    settings = config.read_assignments(assignments).get("reward", {})
    plans = [
        plan for name in names for plan in rewards.plan(name, settings.get(name, {}) if len(names) > 1 else settings)
    ]
    found = [read(source, reading) for source in sources]
    wanted = [_dimensions(one, dimensions) for one in found]
    console, judges = Console(), rewards.load(plans, torch.device("cpu")).parts
    keyed = {_identity(judge): judge for judge in judges}
    cache, facts, sections = Cache(output.with_suffix(".scores.jsonl")), [], []
    for one, own in zip(found, wanted, strict=True):
        with count_bar(console, one.name, len(one.clips), "clips") as tick:
            scored, wrong = score(one.clips, keyed, cache, tick)
        short = {key: judge.spec.name for key, judge in keyed.items()}
        facts.append(_facts(one, scored, [*one.left_out, *wrong], own, short))
        _show(console, facts[-1])
        for key, judge in keyed.items():
            scores = [seen.scores[key] if seen else float("nan") for seen in scored]
            sections += [DisagreementSection(one, judge.spec.name, dimension, scores) for dimension in own]
    licences = {judge.spec.name: judge.spec.licence for judge in judges}
    whole = {"command": "vpo reward bench", "licences": licences, "versions": versions(), "sets": facts}
    files.write(output, json.dumps(whole, indent=1) + "\n")
    files.write(output.with_suffix(".md"), "\n".join(_markdown(one) for one in facts))
    files.write(output.with_suffix(".tex"), "\n".join(_latex(one) for one in facts))
    files.write(output.with_suffix(".html"), page(sections, output))
    beside = ", ".join(output.with_suffix(suffix).name for suffix in (".md", ".tex", ".html"))
    console.print(f"written: {output}, {beside}", soft_wrap=True, highlight=False)


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


def _size(facts: Mapping[str, Any]) -> str:
    return "{read} of {clips} clips, {pairs} pairs of {prompts} prompts".format_map(facts)


def _cell(row: Mapping[str, Any], key: str) -> str:
    return str(PromptInterval(**row[key])) if key in row else ""


def _columns(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows.values() for key in row))


def _show(console: Console, facts: Mapping[str, Any]) -> None:
    console.print(f"{facts['name']}: {_size(facts)}", highlight=False, markup=False)
    for line in facts["left_out"][:SHOWN_LEFT_OUT]:
        console.print(f"left out: {line}", soft_wrap=True, markup=False, highlight=False)
    if len(facts["left_out"]) > SHOWN_LEFT_OUT:
        console.print(f"and {len(facts['left_out']) - SHOWN_LEFT_OUT} more: all are in the file", highlight=False)
    for dimension, rows in facts["dimensions"].items():
        for key in _columns(rows):
            table = Table(title=f"{dimension}: {key} [95%]", title_justify="left", show_edge=False)
            table.add_column("judge", overflow="fold")
            table.add_column(key, justify="right", no_wrap=True)
            for name, row in rows.items():
                if key in row:
                    table.add_row(Text(name), _cell(row, key))
            console.print(table, "")
    for name, probe in facts["probes"].items():
        shown = (
            f"{probe['prefers a frozen clip']:.0%} of clips are better frozen, {probe['seconds a video']:g} s a video"
        )
        console.print(f"{name}: {shown}", highlight=False, markup=False)


def _latex(facts: Mapping[str, Any]) -> str:
    """A table for each dimension, in the lines of booktabs."""
    lines = [f"% {latex_text(facts['name'])}: {_size(facts)}"]
    for dimension, rows in facts["dimensions"].items():
        columns = _columns(rows)
        head = " & ".join(map(latex_text, [dimension, *columns]))
        lines += [rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule", rf"{head} \\", r"\midrule"]
        for name, row in rows.items():
            cells = [_cell(row, key).replace("-", "$-$") for key in columns]
            lines.append(rf"{' & '.join([latex_text(name), *cells])} \\")
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def _markdown(facts: Mapping[str, Any]) -> str:
    lines = [f"## {markdown_text(facts['name'])}", ""]
    lines += [f"{_size(facts)}.", ""]
    for dimension, rows in facts["dimensions"].items():
        columns = _columns(rows)
        lines += [f"| {markdown_text(dimension)} | {' | '.join(columns)} |", "|---" + "|--:" * len(columns) + "|"]
        lines += [
            f"| {markdown_text(name)} | {' | '.join(_cell(row, key) for key in columns)} |"
            for name, row in rows.items()
        ]
        lines.append("")
    lines += ["| judge | prefers a frozen clip | seconds a video |", "|---|--:|--:|"]
    lines += [
        f"| {markdown_text(name)} | {probe['prefers a frozen clip']:.2f} | {probe['seconds a video']:g} |"
        for name, probe in facts["probes"].items()
    ]
    return "\n".join([*lines, "", *(f"- left out: {markdown_text(line)}" for line in facts["left_out"]), ""])
