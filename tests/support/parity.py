"""``python -m tests.support.parity``: the outcome of tests/models/test_adapters.py, family by family."""

from __future__ import annotations

import sys
from collections.abc import Collection

import pytest
from rich.console import Console
from rich.table import Table

from tests.support.places import ROOT

COLUMNS = {
    "sampler": ["test_same_video_as_the_pipeline", "plain"],
    "guidance": ["test_same_video_as_the_pipeline", "guided"],
    "encode": ["test_encode_undoes_the_scaling_of_decode"],
    "decode": ["test_decoding_single_frames"],
    "DPO step": ["test_dpo_step"],
    "guided start": ["test_truncated_gradient", "clip"],
    "truncated gradient": ["test_truncated_gradient", "noise"],
    "LoRA round trip": ["test_lora_round_trip"],
}
"""What a test is called, and the words that its parameters must have."""


class Outcomes:
    """A pytest plugin that keeps the outcome of every test, by its name and parameters."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            name, _, parameters = report.nodeid.rpartition("::")[2].partition("[")
            self.found[name, parameters.rstrip("]")] = report.outcome

    def of(self, families: Collection[str], family: str, test: str, word: str = "") -> str:
        cells = []
        for (name, parameters), outcome in self.found.items():
            longest = max((f for f in families if f in parameters), key=len, default="")  # wan2.1 is not wan2.1-x
            if name == test and longest == family and word in parameters.replace(family, "").split("-") + [""]:
                cells.append(outcome)
        return "ok" if cells and set(cells) == {"passed"} else "FAILS" if cells else "-"


def main() -> int:
    outcomes = Outcomes()
    code = pytest.main(["-q", str(ROOT / "tests/models/test_adapters.py")], plugins=[outcomes])
    from vpo_kit.testing.families import FAMILIES  # not before pytest has looked at what it rewrites

    table = Table("family", *COLUMNS)
    for family in FAMILIES:
        table.add_row(family, *(outcomes.of(FAMILIES, family, *test) for test in COLUMNS.values()))
    Console().print(table)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
