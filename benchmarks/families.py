"""``python -m benchmarks.families``: the tables of docs/families, from the ready recipes and their plans.

Figures are those of ``benchmarks/results/recipes.json``, settings and the reasons for them those of the recipes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from benchmarks import facts
from vpo_kit.recipes.shelf import Ready, ready

DOCS = Path(__file__).parents[1] / "docs"
SHARED = DOCS / "families.md"
BEGIN, END = "<!-- table: python -m benchmarks.families -->", "<!-- end of table -->"
PHASES = {"prompts": "prompts", "measure": "measuring", "data": "data", "step": "training step"}
"""A plan's phases by the names that `vpo plan` shows."""
COMMON = {"pairs", "prompts", "videos", "reward", "evaluation"}
"""Settings of every family whose remarks are not a family's own."""
SIZES, NUMBERS, HOUR = BEGINNINGS = ("Sizes", "(beta|rank),", "First hour")
"""How the comments of a recipe begin that say where its numbers are from and what to look for."""


def page(family: str) -> Path:
    return DOCS / "families" / f"{family}.md"


def plans() -> dict[str, Any]:
    """The rows of the committed plans, by recipe."""
    found: dict[str, Any] = json.loads((facts.RESULTS / "recipes.json").read_text())["rows"]
    return found


def of_family(family: str) -> str:
    """What the page of a family says of its recipes: sizes, memory, and settings that no other family has."""
    own = [one for one in ready() if one.family == family]
    sizes = [
        "| recipe | frames x width x height | steps, guidance | rank, rate | steps x batch |",
        "|---|---|---|---|---|",
        *(_row(f"`{one.method}`, `{one.gigabytes} GB`", *_settings(one)) for one in own),
    ]
    memory = [
        f"| peak of | {' | '.join(PHASES.values())} | passes of a step |",
        f"|---|{'--:|' * (len(PHASES) + 1)}",
        *(_row(f"`{one.method}`, `{one.gigabytes} GB`", *_memory(plans()[str(one)])) for one in own),
    ]
    commands = ["```bash", *(f"vpo init {one}" for one in own), "```"]
    return "\n".join(["", *commands, "", *sizes, "", *memory, "", *_remarks(own), ""])


def shared() -> str:
    """What the shared page says: every family with its recipes, then what is the same in all recipes of a method."""
    lines = ["", "| family | model | recipes | largest peak |", "|---|---|---|--:|"]
    for family, found in groupby(ready(), key=lambda one: one.family):
        own = list(found)
        rows = [plans()[str(one)] for one in own]
        listed = ", ".join(f"`{one.method}` in `{one.gigabytes} GB`" for one in own)
        most = max(row["peak"] for row in rows)
        lines.append(_row(f"[{family}](families/{family}.md)", f"`{rows[0]['model']}`", listed, f"{most / 1e9:.1f} GB"))
    lines += ["", "| method | its numbers are from | the first hour |", "|---|---|---|"]
    for method in dict.fromkeys(one.method for one in sorted(ready(), key=lambda one: one.method)):
        said = {(comment(one, NUMBERS), comment(one, HOUR)) for one in ready() if one.method == method}
        lines += [_row(f"`{method}`", _plain(numbers), _plain(hour)) for numbers, hour in sorted(said)]
    return "\n".join([*lines, ""])


def comment(one: Ready, begin: str) -> str:
    """What a recipe's comment that begins so says, up to the next one, on one line. Raises `ValueError` for none."""
    lines = [line[2:] for line in one.path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    starts = [place for place, line in enumerate(lines) if re.match("|".join(BEGINNINGS), line)]
    for place, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        if re.match(begin, lines[place]):
            return " ".join(lines[place:end])
    raise ValueError(f"{one}: no comment begins with {begin}")


def text(path: Path, own: str) -> str:
    """A page with `own` between its marks."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{own}\n{END}{rest.partition(END)[2]}"


def pages() -> dict[Path, str]:
    """Every page as it should be."""
    families = dict.fromkeys(one.family for one in ready())
    return {SHARED: text(SHARED, shared()), **{page(name): text(page(name), of_family(name)) for name in families}}


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _read(one: Ready) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(one.path.read_text(encoding="utf-8"))
    return found


def _settings(one: Ready) -> list[str]:
    given = _read(one)
    sampling, lora = given["sampling"], given["lora"]
    guidance = sampling["guidance"]
    scale = ", ".join(f"{v:g}" for v in guidance.values()) if isinstance(guidance, dict) else f"{guidance:g}"
    return [
        f"`{sampling['frames']} x {sampling['width']} x {sampling['height']}`",
        f"`{sampling['steps']}`, `{scale}`",
        f"`{lora['rank']}`, `{given['optimiser']['lr']:g}`",
        f"`{given['steps']} x {given['batch_size']}`",
    ]


def _memory(row: dict[str, Any]) -> list[str]:
    """The peak of each phase, the highest in bold."""
    shown = {name: f"{row['bytes'][name] / 1e9:.1f} GB" for name in PHASES}
    cells = [f"**{text}**" if name == row["phase"] else text for name, text in shown.items()]
    return [*cells, f"{row['passes']:g}"]


def _remarks(own: Sequence[Ready]) -> list[str]:
    """Sizes with their reason, and remarks beside single settings."""
    lines = []
    for said, found in _grouped(own):
        methods = ", ".join(f"`{one.method}`" for one in found)
        lines.append(f"- {methods}: {_plain(said)}")
    for remark in dict.fromkeys(remark for one in own for remark in _beside(one)):
        lines.append(f"- {remark}")
    return lines


def _grouped(own: Sequence[Ready]) -> Iterable[tuple[str, list[Ready]]]:
    said: dict[str, list[Ready]] = {}
    for one in own:
        said.setdefault(comment(one, SIZES), []).append(one)
    return said.items()


def _beside(one: Ready) -> list[str]:
    found = []
    for line in one.path.read_text(encoding="utf-8").splitlines():
        setting, _, remark = line.partition("  # ")
        if remark and setting.partition(":")[0] not in COMMON:
            found.append(f"`{setting}`: {remark}")
    return found


def _plain(said: str) -> str:
    """A recipe's comment as prose of a page, without the name of the page on sizes; its settings are inline code."""
    said = re.sub(r"^First hour: |^Sizes, steps and guidance: | \(docs/models\.md\)|\.$", "", said)
    said = re.sub(r"\b[a-z]+_[a-z_]+\b", r"`\g<0>`", said)
    return re.sub(r"(?<![\w.])0(\.\d)?(?![\w]|\.\d)", r"`\g<0>`", said).removesuffix(".")


def main() -> None:
    for path, found in pages().items():
        path.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()
