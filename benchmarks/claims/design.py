"""What is claimed, the effect that would matter, and when a claim counts as decided: ``design.yaml``, read and shown.

A claim is decided by an interval and by the effect that was written down before the runs: it is found where the
interval says so, excluded where the interval rules out the effect that would matter, and open otherwise.
"""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmarks import facts
from benchmarks.claims import pilot
from vpo_kit.comparison.layout import Components, Layout, power

FILE = Path(__file__).parent / "design.yaml"
PAGE = FILE.with_suffix(".md")
Kind = Literal["more", "keeps", "same"]
Verdict = Literal["found", "found, less than matters", "excluded", "open"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`one` against `other`, rows of boards; with `share` the effect is a share of the base's mean. One that came to
    mind when its boards had been run is `afterwards`: it is told, and counts for nothing.
    """

    name: str
    source: str
    board: str
    one: str
    other: str
    metric: str
    kind: Kind
    effect: float
    share: bool = False
    afterwards: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A `vpo compare` that several claims share; `hours` are what one core takes for it, roughly. Of `noises` and
    `seeds` it has as many as all, where it does not say so; `model` is an embedded one; `curves` are fields of the log
    that are drawn over the steps.
    """

    what: str
    arguments: list[str]
    hours: float
    model: str = "sprites"
    curves: Sequence[str] = ()
    noises: int | None = None
    seeds: int | None = None


@dataclass(frozen=True)
class Program:
    """What decides claims without being a comparison; `hours` as there."""

    what: str
    hours: float


@dataclass(frozen=True, kw_only=True)
class Design:
    """All of it; `commit` is where the file was last changed, which no result may be older than."""

    size: Layout
    boards: Mapping[str, Comparison]
    beside: Mapping[str, Program]
    claims: Mapping[str, Claim]
    commit: str

    def layout(self, board: str) -> Layout:
        """The size of a board."""
        own = self.boards[board]
        return Layout(self.size.prompts, own.noises or self.size.noises, own.seeds or self.size.seeds)

    def of(self, board: str) -> list[Claim]:
        """The claims that are decided when this board is there."""
        return [claim for claim in self.claims.values() if claim.board == board]


def read(path: Path = FILE) -> Design:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    last = subprocess.run(
        ["git", "log", "-1", "--format=%h", "--", path.name],
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return Design(
        size=Layout(**found["size"]),
        boards={name: Comparison(**values) for name, values in found["boards"].items()},
        beside={name: Program(**values) for name, values in found["beside"].items()},
        claims={name: Claim(name=name, **values) for name, values in found["claims"].items()},
        commit=last.stdout.strip(),
    )


def verdict(kind: Kind, low: float, high: float, effect: float) -> Verdict:
    """Whether an interval of `one` minus `other` decides a claim for which `effect` > 0 would matter."""
    match kind:
        case "more":
            if low > 0:
                return "found" if high >= effect else "found, less than matters"
            return "excluded" if high < effect else "open"
        case "keeps":
            return "found" if low > -effect else "excluded" if high < -effect else "open"
        case "same":
            if -effect < low and high < effect:
                return "found"
            return "excluded" if high < -effect or low > effect else "open"


def outcome(claim: Claim, interval: tuple[float, float, float], effect: float) -> dict[str, Any]:
    """A claim as its result has it, of a difference and the ends of its interval; `effect` is in the metric's unit."""
    difference, low, high = interval
    told = verdict(claim.kind, low, high, effect)
    return {**asdict(claim), "effect": effect, "verdict": told, "difference": difference, "low": low, "high": high}


def table(design: Design, variances: Mapping[str, Components], means: Mapping[str, float]) -> str:
    """The claims as a table, with the power of a claim of kind `more` where variances of its metric are known; `means`
    are the base's.
    """
    lines = ["| claim | source | board | test | power |", "|---|---|---|---|---|"]
    likely = functools.cache(power)  # of most claims it is the same
    for claim in design.claims.values():
        effect = claim.effect * (means.get(claim.metric, 0.0) if claim.share else 1.0)
        is_compared = claim.board in design.boards and claim.kind == "more"
        known = variances.get(claim.metric) if is_compared and effect else None
        told = "" if known is None else f"{likely(effect, known, design.layout(claim.board)):.2f}"
        source = f"{claim.source}, afterwards" if claim.afterwards else claim.source
        lines.append(f"| {claim.name} | {source} | {claim.board} | {_test(claim)} | {told} |")
    return "\n".join(lines) + "\n"


def _test(claim: Claim) -> str:
    by = f"{claim.effect:.0%}" if claim.share else f"{claim.effect:g}"
    pair = f"`{claim.one}` minus `{claim.other}`"
    match claim.kind:
        case "more":
            return f"{claim.metric} of {pair} above 0; {by} matters"
        case "keeps":
            return f"{claim.metric} of {pair} above -{by}"
        case "same":
            return f"{claim.metric} of {pair} within {by}"


def known() -> tuple[dict[str, Components], dict[str, float]]:
    """The variances of each metric, the means over the claims that are decided, and the base's mean of it; those of
    the pilot until there is one. Rows that came out as good as the same run for run say nothing of what others vary by.
    """
    before, means = pilot.known()
    between: dict[str, list[Components]] = {}
    for path in sorted((facts.RESULTS / "claims").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        for claim in found["claims"].values() if "rows" in found and "design" in found else ():
            if claim["high"] - claim["low"] > claim["effect"] / 100:
                between.setdefault(claim["metric"], []).append(Components(**claim["variances"]))
            changes = (row["changes"].get(claim["metric"]) for row in found["rows"])
            means[claim["metric"]] = next(change["before"] for change in changes if change)
    return before | {metric: Components.mean(every) for metric, every in between.items()}, means


def show(design: Design) -> None:
    """Write design.md anew."""
    words = table(design, *known())
    boards = ["| board | what is run | hours of one core |", "|---|---|---|"]
    boards += [
        f"| {name} | {one.what} | {one.hours:g} |" for name, one in (*design.boards.items(), *design.beside.items())
    ]
    facts.fill(PAGE, "<!-- boards -->\n", "<!-- end of boards -->", "\n".join(boards) + "\n")
    facts.fill(PAGE, "<!-- claims -->\n", "<!-- end of claims -->", words)
