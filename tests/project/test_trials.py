"""The board of all methods: every method gets as many trials, and what it is given are settings that it knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.learning import board
from vpo_kit import config
from vpo_kit.comparison import plan
from vpo_kit.comparison.plan import Row
from vpo_kit.registry import METHODS

FULL = board.Extent(36_000, smoke=False)


def rows(arguments: Sequence[str]) -> list[Row]:
    """The rows that `vpo compare` would make of its arguments."""

    def given(option: str) -> list[str]:
        return [arguments[i + 1] for i, text in enumerate(arguments) if text == option]

    (names,) = given("--methods")
    methods = plan.read_methods(names)
    shared, own = plan.read_own(given("--set"), methods)
    settings = plan.RowSettings({}, config.read_assignments(shared), own)
    data = plan.Given(
        prompts=Path("train.txt"), pairs=Path("guided"), independent=Path("independent"), videos=Path("clips")
    )
    return plan.rows(
        methods, settings, plan.read_vary(given("--vary"), methods), data, plan.read_budget(given("--budget")[0])
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    found: list[Sequence[str]] = []
    monkeypatch.setattr(board, "vpo", lambda work, *arguments: found.append(arguments))
    return found


def test_every_method_gets_as_many_trials_under_the_names_by_which_they_are_found(asked: list[Sequence[str]]) -> None:
    methods = list(board.GRIDS)
    board.tune(Path(), methods, FULL)
    made = [row.name for row in rows(asked[0])]
    assert made == [
        " ".join([method, *(f"{key}={value}" for key, value in one.items())])
        for method in methods
        for one in board.trials(FULL.grid(method))
    ]
    assert {len(board.trials(FULL.grid(method))) for method in methods} == {4}


def test_trials_are_kept_with_what_they_were_asked_for_and_not_used_for_another_budget(
    asked: list[Sequence[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"dpo": {"chosen": {"optimiser.lr": 1e-3}, "trials": []}}
    monkeypatch.setattr(board, "chosen", lambda *_: found)
    for _ in range(2):
        assert board.tuning(Path(), tmp_path / "tuned.json", ["dpo"], FULL) == found
    assert len(asked) == 1
    board.tuning(Path(), tmp_path / "tuned.json", ["dpo"], board.Extent(12_000, smoke=False))
    assert len(asked) == 2


def test_the_board_has_every_method_and_three_sources_of_pairs_at_equal_passes(asked: list[Sequence[str]]) -> None:
    best = {method: {"chosen": board.trials(FULL.grid(method))[-1]} for method in board.GRIDS}
    board.board(Path(), list(board.GRIDS), FULL, best)
    made = rows(asked[0])
    assert {row.method for row in made} == set(METHODS.builtins) - {"alignprop", "vader"}  # draft with other settings
    assert [row.values["pairs"] for row in made if row.method == "dpo"] == ["independent", "local", "real"]
    assert {row.values["max_passes"] for row in made} == {36_000}
    for row in made:
        own = {key: value for key, value in row.values["method"].items() if key != "name"}
        METHODS.load(row.method).Config.model_validate(own)  # an unknown setting is an error
        assert row.values["optimiser"]["lr"] == best[row.method]["chosen"]["optimiser.lr"]
        assert ("pairs" in row.values) + ("prompts" in row.values) + ("videos" in row.values) == 1
