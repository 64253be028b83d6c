"""The board of all methods: every method gets as many trials of the same reach, with settings that it knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.learning import board, code
from vpo_kit import config
from vpo_kit.comparison import plan
from vpo_kit.comparison.plan import Row
from vpo_kit.registry import METHODS
from vpo_kit.training.reach import reach

FULL = board.Extent(24_000, smoke=False)


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
    """The commands that were run; each leaves a board on which the later rows are better."""
    found: list[Sequence[str]] = []

    def vpo(folder: Path, *arguments: str) -> None:
        found.append(arguments)
        changes = [{"vqa": {"difference": float(place)}} for place in range(9)]
        made = [
            {"name": row.name, "passes": 1, "changes": one, "runs": [{"status": "done"}]}
            for row, one in zip(rows(arguments), changes, strict=False)
        ]
        (folder / arguments[-1]).mkdir()
        (folder / arguments[-1] / "results.json").write_text(json.dumps({"rows": made}))

    monkeypatch.setattr(board, "vpo", vpo)
    return found


@pytest.mark.parametrize("method", board.PASSES_A_STEP)
def test_a_method_gets_two_trials_and_the_better_rate(method: str, asked: list[Sequence[str]], tmp_path: Path) -> None:
    board.run(tmp_path, tmp_path, method, FULL)
    trials, shown = (rows(arguments) for arguments in asked)
    assert [row.values["optimiser"]["lr"] for row in trials] == FULL.rates(method)
    assert {row.values["max_passes"] for row in trials} == {12_000}
    assert {row.values["max_passes"] for row in shown} == {24_000}
    assert {row.values["optimiser"]["lr"] for row in shown} == {FULL.rates(method)[1]}
    found = json.loads((tmp_path / "board" / f"{method}.json").read_text())
    assert [row["name"] for row in found["rows"]] == [row.name for row in shown]
    board.run(tmp_path, tmp_path, method, FULL)  # it is there
    assert len(asked) == 2
    with pytest.raises(SystemExit, match="is of 24000 passes"):
        board.run(tmp_path, tmp_path, method, board.Extent(12_000, smoke=False))


def test_while_nothing_is_gained_lower_rates_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method whose rates all harm would be on the board at a rate that nobody would take."""
    gains = iter([-0.1, -0.2, 0.0, 0.3])

    def vpo(folder: Path, *arguments: str) -> None:
        made = [
            {"name": row.name, "passes": 1, "changes": {"vqa": {"difference": next(gains)}}, "runs": []}
            for row in rows(arguments)
        ]
        (folder / arguments[-1]).mkdir()
        (folder / arguments[-1] / "results.json").write_text(json.dumps({"rows": made}))

    monkeypatch.setattr(board, "vpo", vpo)
    found = board.tune(tmp_path, "rwr", FULL)
    first = FULL.rates("rwr")
    tried = [one["rate"] for one in found["trials"]]
    assert tried[:2] == first
    assert tried[2:] == pytest.approx([first[0] / 3, first[0] / 9], rel=0.05)
    assert found["rate"] == tried[-1]


def test_a_failed_run_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vpo(folder: Path, *arguments: str) -> None:
        failed = {"seed": 100, "status": "failed", "reason": "out of memory"}
        (folder / arguments[-1]).mkdir(exist_ok=True)
        told = {"rows": [{"name": "mapo a", "passes": 1, "changes": {}, "runs": [failed]}]}
        (folder / arguments[-1] / "results.json").write_text(json.dumps(told))

    monkeypatch.setattr(board, "vpo", vpo)
    with pytest.raises(SystemExit, match="trials: mapo a, seed 100, failed: out of memory"):
        board.run(tmp_path, tmp_path, "mapo", FULL)
    assert not (tmp_path / "board" / "mapo.json").exists()


def test_the_rates_of_all_methods_have_the_same_reach() -> None:
    for method, passes in board.PASSES_A_STEP.items():
        run = {"steps": FULL.passes // passes, "lora": {"rank": board.RANK}}
        schedule = {"schedule": "linear", "decay_share": 0.6, "warmup_steps": 5}
        for rate, wanted in zip(FULL.rates(method), board.REACHES, strict=True):
            found = reach(config.build({**run, "optimiser": {"lr": rate, **schedule}}))
            assert found.reach == pytest.approx(wanted, rel=0.1)


def test_the_board_has_every_method_and_three_sources_of_pairs(asked: list[Sequence[str]], tmp_path: Path) -> None:
    assert set(board.PASSES_A_STEP) == set(METHODS.builtins) - {"alignprop", "vader"}  # draft with other settings
    board.board(tmp_path, "dpo", FULL, 1e-3)
    assert [row.values["pairs"] for row in rows(asked[0])] == ["independent", "local", "real"]
    board.board(tmp_path, "kto", FULL, 1e-3)
    assert [row.values["pairs"] for row in rows(asked[1])] == ["independent"]


def test_a_method_has_a_file_of_its_own_and_shares_the_rest() -> None:
    found = {name: [path.name for path in code.files(name)] for name in METHODS.builtins}
    assert [own for own, *_ in found.values()] == [f"{name}.py" for name in found]
    assert found["grpo"][1:] == ["moving.py", "from_rollouts.py"]
    assert found["mapo"] == ["mapo.py"]
