"""The tables of ``benchmarks/results/claims/README.md``, from the results; the words round them are by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from benchmarks import facts
from benchmarks.claims import plots
from benchmarks.claims.design import Claim, Design, Verdict
from vpo_kit.comparison import text

PAGE = facts.RESULTS / "claims" / "README.md"
END = "<!-- end of table -->"
DECIDED = {told for told in get_args(Verdict) if told != "open"}


def check(name: str) -> None:
    """Raises `SystemExit` where the page has no section for a board, which only a writer can begin."""
    if _mark(name) not in PAGE.read_text(encoding="utf-8"):
        raise SystemExit(f"{PAGE.name} of the claims has no section for {name}: write its heading, {_mark(name)}{END}")


def fill(name: str, words: str) -> None:
    """Put `words`, and the claim's plots, where the page has room for the claim `name`."""
    plots = sorted(path.name for pattern in (f"{name}.png", f"{name}-*.png") for path in PAGE.parent.glob(pattern))
    words = "\n".join([words, "", *(f"![{plot.removesuffix('.png')}]({plot})" for plot in plots)]).rstrip()
    facts.fill(PAGE, _mark(name), END, f"\n{words}\n")


def _mark(name: str) -> str:
    return f"<!-- table: python -m benchmarks.claims {name} -->\n"


def short(design: Design) -> None:
    """Every claim with what it came to, how many are decided, and a picture of those that have a result."""
    found = {claim.name: _result(claim) for claim in design.claims.values()}
    rows = [_row(claim, found[claim.name]) for claim in design.claims.values()]
    before = [claim for claim in design.claims.values() if not claim.afterwards]
    decided = sum(found[claim.name].get("verdict") in DECIDED for claim in before)
    lines = [f"{decided} of {len(before)} are decided.", ""]
    lines += table(["claim", "result", "difference", "verdict"], rows)
    if told := [one for one in found.values() if "verdict" in one]:
        plots.claims(told, PAGE.parent / "claims.png")
        lines += ["", "![claims](claims.png)"]
    facts.fill(PAGE, "<!-- claims -->\n", "<!-- end of claims -->", "\n".join(["", *lines, ""]))


def _result(claim: Claim) -> dict[str, Any]:
    """What a claim came to, or `missing`: why it has no result."""
    path = facts.RESULTS / "claims" / f"{claim.board}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "design" not in found:  # a result of version 0.1.0 had none
        return {"missing": "not run yet"}
    told: dict[str, Any] = found["claims"].get(
        claim.name, {"missing": f"waits: {found.get('waiting', {}).get(claim.name)}"}
    )
    return told


def _row(claim: Claim, found: Mapping[str, Any]) -> list[str]:
    name = f"{claim.name} (afterwards)" if claim.afterwards else claim.name
    if "missing" in found:
        return [name, f"`{claim.board}`", "", found["missing"]]
    return [name, f"`{claim.board}.json`", span(found), found["verdict"]]


def say(claims: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what claims came to."""
    for name, one in claims.items():
        print(f"{name}: {one['verdict']}, {span(one)}".replace("**", ""), flush=True)


def board(name: str, found: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Every row's change against the base, and what its claims came to."""
    rows = sorted(found["rows"], key=lambda row: -row["changes"].get("gold", {"difference": -9.0})["difference"])
    before = next(row["changes"] for row in rows if row["changes"])
    lines = table(
        ["row", *(f"{metric}, base {before[metric]['before']:.3g}" for metric in metrics), "passes"],
        [
            [_name(row["name"]), *(span(row["changes"].get(m)) for m in metrics), f"{row['passes'] or 0:,.0f}"]
            for row in rows
        ],
    )
    if found["claims"] or found["waiting"]:
        told = []
        for claim, one in found["claims"].items():
            told.append([claim, _name(one["one"]), _name(one["other"]), one["metric"], span(one), one["verdict"]])
            if base := one.get("untrained"):
                told.append(["untrained, the same", "`base`", *told[-1][2:4], span(base), base["verdict"]])
        told += [[claim, "", "", "", "", f"waits: {why}"] for claim, why in found["waiting"].items()]
        lines += ["", "One row minus the other, from the same seeds of training on the same noises:", ""]
        lines += table(["claim", "row", "minus", "metric", "difference", "verdict"], told)
    fill(name, "\n".join(lines))


def _name(row: str) -> str:
    return f"`{text.label(row)}`"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]


def span(change: Mapping[str, float] | None) -> str:
    """``+0.123 [+0.045, +0.201]``, in bold where the interval leaves out no change."""
    if change is None:
        return ""
    places = 4 if max(abs(change["low"]), abs(change["high"])) < 0.01 else 3
    shown = "{:+.{p}f} [{:+.{p}f}, {:+.{p}f}]".format(change["difference"], change["low"], change["high"], p=places)
    return f"**{shown}**" if change["low"] * change["high"] > 0 else shown
