"""What training on one judge does by the others: a fall beside the diagonal is a judge that was fooled.

``results/claims/matrix.json`` holds for each method and each judge that it was trained on (its reward, or what labelled
its pairs) the change by every judge and of motion; ``matrix.png`` shows them. The boards are `matrix-rewards` and
`matrix-labels` of the design.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import facts
from benchmarks.claims import page
from benchmarks.claims.boards import Boards

BOARDS = ("matrix-rewards", "matrix-labels")
LOOKED_AT_BY = ("vqa", "gold", "gold2", "technical", "natural", "image", "motion", "flawed", "text_accuracy")
JUDGES = {
    "vqa": "vqa", "technical": "technical", "vqa:0.5+technical:0.5": "mixture",
    "benchmarks.claims.image:Frames": "image",
    "guided": "vqa", "guided-technical": "technical", "guided-mixture": "mixture", "guided-image": "image",
}  # fmt: skip
"""What a row was trained on, by what its name varies."""


def write(boards: Boards) -> None:
    """The result, its picture and its table, of the boards whose results are there."""
    rows = []
    for board in BOARDS:
        path = facts.RESULTS / "claims" / f"{board}.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            rows += [trained(row) for row in found["rows"] if row["samples"] == 1]
    order = list(JUDGES.values())
    rows.sort(key=lambda row: (row["method"], order.index(row["judge"])))
    facts.write("claims/matrix", {"design": boards.design.commit, "claims": {}, "waiting": {}, "rows": rows})
    picture(rows)
    head = ["method", "trained on", *LOOKED_AT_BY]
    lines = [[row["method"], row["judge"], *(page.span(row["changes"].get(m)) for m in LOOKED_AT_BY)] for row in rows]
    page.fill("matrix", "\n".join(page.table(head, lines)))


def trained(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a board: its method, the judge, and the changes that are looked at."""
    said = re.fullmatch(r"\S+ (?:reward|pairs)=(\S+)", row["name"])
    assert said is not None, row["name"]
    changes = {name: row["changes"][name] for name in LOOKED_AT_BY if name in row["changes"]}
    return {"method": row["method"], "judge": JUDGES[said[1]], "changes": changes}


def picture(rows: list[dict[str, Any]]) -> None:
    """Changes in standard deviations over videos, so that judges can be set side by side; what is sure is in bold, and
    what is worse is red.
    """
    figure = Figure(figsize=(1.1 * len(LOOKED_AT_BY) + 2.5, 0.4 * len(rows) + 1.2), layout="constrained")
    axis = figure.add_subplot()
    values = [[_scaled(row["changes"].get(name)) for name in LOOKED_AT_BY] for row in rows]
    # every row has the same metrics, and each of them the same direction in all rows
    turned = [-1 if rows[0]["changes"].get(name, {}).get("direction") == "lower" else 1 for name in LOOKED_AT_BY]
    axis.imshow(np.array(values) * turned, cmap="RdBu", vmin=-0.6, vmax=0.6, aspect="auto")
    for y, (row, line) in enumerate(zip(rows, values, strict=True)):
        for x, (name, value) in enumerate(zip(LOOKED_AT_BY, line, strict=True)):
            change = row["changes"].get(name)
            sure = change is not None and change["low"] * change["high"] > 0
            weight = "bold" if sure else "normal"
            axis.text(x, y, f"{value:+.2f}", ha="center", va="center", fontsize=8, fontweight=weight)
    names = [f"{name} (less is better)" if sign < 0 else name for name, sign in zip(LOOKED_AT_BY, turned, strict=True)]
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    axis.set_yticks(range(len(rows)), [f"{row['method']} on {row['judge']}" for row in rows], fontsize=8)
    figure.savefig(facts.RESULTS / "claims" / "matrix.png", dpi=110, metadata={"Software": None})


def _scaled(change: Mapping[str, float] | None) -> float:
    return 0.0 if change is None or not change["spread"] else change["difference"] / change["spread"]
