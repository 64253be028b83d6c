"""The tables of `vpo reward bench` in words, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vpo_kit.evaluation.tables import latex_text, markdown_text
from vpo_kit.judged.against_people import PromptInterval


def size(facts: Mapping[str, Any]) -> str:
    """How much of a set was read."""
    return "{read} of {clips} clips, {pairs} pairs of {prompts} prompts".format_map(facts)


def cell(row: Mapping[str, Any], key: str) -> str:
    """A judge's measure `key` with its interval, or nothing where it has none."""
    return str(PromptInterval(**row[key])) if key in row else ""


def columns(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The measures that any of the judges has, in their order."""
    return list(dict.fromkeys(key for row in rows.values() for key in row))


def latex(facts: Mapping[str, Any]) -> str:
    """A table of a set for each dimension, in the lines of booktabs."""
    lines = [f"% {latex_text(facts['name'])}: {size(facts)}"]
    for dimension, rows in facts["dimensions"].items():
        names = columns(rows)
        head = " & ".join(map(latex_text, [dimension, *names]))
        lines += [rf"\begin{{tabular}}{{l{'r' * len(names)}}}", r"\toprule", rf"{head} \\", r"\midrule"]
        for name, row in rows.items():
            cells = [cell(row, key).replace("-", "$-$") for key in names]
            lines.append(rf"{' & '.join([latex_text(name), *cells])} \\")
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def markdown(facts: Mapping[str, Any]) -> str:
    """A table of a set for each dimension, the probes, and what was left out."""
    lines = [f"## {markdown_text(facts['name'])}", ""]
    lines += [f"{size(facts)}.", ""]
    for dimension, rows in facts["dimensions"].items():
        names = columns(rows)
        lines += [f"| {markdown_text(dimension)} | {' | '.join(names)} |", "|---" + "|--:" * len(names) + "|"]
        lines += [
            f"| {markdown_text(name)} | {' | '.join(cell(row, key) for key in names)} |" for name, row in rows.items()
        ]
        lines.append("")
    lines += ["| judge | prefers a frozen clip | seconds a video |", "|---|--:|--:|"]
    lines += [
        f"| {markdown_text(name)} | {probe['prefers a frozen clip']:.2f} | {probe['seconds a video']:g} |"
        for name, probe in facts["probes"].items()
    ]
    return "\n".join([*lines, "", *(f"- left out: {markdown_text(line)}" for line in facts["left_out"]), ""])
