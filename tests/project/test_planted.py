"""Planted faults (`benchmarks.reliability.planted`) on a toy: what its test holds is caught, the rest survives."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.reliability.planted import __main__ as planted
from benchmarks.reliability.planted.faults import faults
from benchmarks.reliability.planted.grounds import Grounds
from benchmarks.reliability.planted.nearby import neighbours
from tests.support.places import ROOT

TOY = '''"""A toy, not a + b."""
LIMIT = 3


def held(values: list[int], scale: float = 2.0) -> float:
    """Highest less the next."""
    if not values:
        raise ValueError(f"{len(values) + 1} values")
    values.sort(reverse=True)
    return scale * (max(values) - values[1])


def loose(x: int) -> bool:
    return x < LIMIT
'''
TEST = """from vpo_kit.toy import held


def test_held() -> None:
    assert held([1, 7, 3, 4]) == 6
"""


def test_faults_are_single_changes_of_what_the_code_does() -> None:
    found = faults("toy.py", TOY)
    assert {(fault.kind, fault.old, fault.new) for fault in found} == {
        ("constant", "3", "4"), ("constant", "2.0", "4.0"), ("condition", "not values", "(values)"),
        ("call", "values.sort(reverse=True)", "pass"), ("keyword", "values.sort(reverse=True)", "(values.sort())"),
        ("factor", "scale * (max(values) - values[1])", "(scale / (max(values) - values[1]))"),
        ("constant", "True", "False"),
        ("sign", "max(values) - values[1]", "(max(values) + values[1])"), ("mean", "max(values)", "(min(values))"),
        ("index", "values[1]", "(values[0])"), ("comparison", "x < LIMIT", "(x >= LIMIT)"),
    }  # fmt: skip
    assert len({fault.planted(TOY) for fault in found} - {TOY}) == len(found)
    with pytest.raises(ValueError, match=r"toy\.py has changed at line 2"):
        found[0].planted("x" + TOY)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A repository of one module and one test."""
    modules = {"vpo_kit/__init__.py": "", "vpo_kit/toy.py": TOY, "vpo_kit/alone.py": "ALONE = 1\n"}
    for name, text in {**modules, "tests/test_toy.py": TEST}.items():
        path = tmp_path / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git = ["git", "-c", "user.name=toy", "-c", "user.email=toy@localhost"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "toy"]):
        subprocess.run([*git, *command], cwd=tmp_path / "toy", check=True)
    return tmp_path / "toy"


def test_what_no_test_holds_survives_and_a_stopped_run_goes_on(toy: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"commit": "HEAD"}) + "\n")
    rows = []
    with Grounds(toy, "HEAD", libraries=False) as grounds:
        drawn = planted.draw(grounds.root, ["toy.py"], 100, 0)
        trials = planted.Trials(grounds, planted.Log(log), seconds=10)
        rows = [{**trials.run(fault), "place": fault.place} for fault in drawn]
        assert (grounds.root / "vpo_kit/toy.py").read_text() == TOY
        (untested,) = planted.draw(grounds.root, ["alone.py"], 100, 0)
        found = trials.run(untested)
        assert (found["caught"], found["by"]) == (False, "no fast test is near")
    survived = {row["place"].removeprefix("vpo_kit/toy.py: ") for row in rows if not row["caught"]}
    assert survived == {"LIMIT = 3: 3 -> 4", "return x < LIMIT: x < LIMIT -> (x >= LIMIT)"}
    assert {row["by"].split(" - ")[0] for row in rows if row["caught"]} == {"FAILED tests/test_toy.py::test_held"}
    again = planted.Log(log).faults
    assert [{**again[fault.key], "place": fault.place} for fault in drawn] == rows

    limit, turned = sorted(f"vpo_kit/toy.py: {place}" for place in survived)
    score = planted.summary(rows, {limit: "equivalent: so says the toy"})
    counts = {"planted": 11, "caught": 9, "equivalent": 1, "elsewhere": 0, "since": 0}
    assert score["total"] == {**counts, "share": 0.9, "share_since": 0.9}
    assert score["files"] == {"vpo_kit/toy.py": counts}
    assert {one["reason"] for one in score["survivors"]} == {None, "equivalent: so says the toy"}
    assert "| `vpo_kit/toy.py` | 11 | 1 | 9 | 0 | 0 |" in planted.table(score["files"])
    score = planted.summary(rows, {limit: "held by tests/test_other.py", turned: "held since by tests/test_new.py"})
    assert (score["total"]["share"], score["total"]["share_since"]) == (round(10 / 11, 4), 1.0)


def test_the_nearest_tests_are_those_of_the_module_itself() -> None:
    found = neighbours(ROOT)
    for file, first in (
        ("vpo_kit/losses.py", "tests/test_losses.py"),
        ("vpo_kit/methods/kto.py", "tests/methods/test_kto.py"),
        ("vpo_kit/rewards/base.py", "tests/rewards/test_base.py"),
        ("vpo_kit/rewards/canvases.py", "tests/rewards/test_rewards.py"),
    ):
        assert found.of(file)[0][1] == first
    through_the_registry = [test for _, test in found.of("vpo_kit/methods/dense.py")]
    assert "tests/project/test_directions.py" in through_the_registry[:10]
