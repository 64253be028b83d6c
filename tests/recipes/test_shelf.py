"""Ready recipes are right as far as can be known without weights, and claim no memory that their plan does not show."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.support.commands import main_ok
from tests.support.places import ROOT
from vpo_kit import config, defaults
from vpo_kit.errors import ConfigError
from vpo_kit.planning.advice import HEADROOM
from vpo_kit.recipes import shelf
from vpo_kit.recipes.shelf import Ready, ready
from vpo_kit.registry import METHODS, REWARDS
from vpo_kit.rewards import loading

PLANNED = json.loads((ROOT / "benchmarks" / "results" / "recipes.json").read_text())["rows"]


def test_there_are_some() -> None:
    assert len(ready()) >= 10
    assert len({one.family for one in ready()}) >= 5
    assert set(PLANNED) == {str(one) for one in ready()}


@pytest.mark.parametrize("one", ready(), ids=str)
def test_a_recipe_is_checked(one: Ready) -> None:
    """Its own method's settings, judges for real videos that are not trained on, one of which reads the prompt."""
    given = yaml.safe_load(one.path.read_text(encoding="utf-8"))
    run = defaults.build(given)
    kind = METHODS.load(run.method_name)
    assert run.method_name == one.method
    config.validate(kind.Config, {key: value for key, value in run.method.items() if key != "name"}, "method.")
    assert [name for name in ("prompts", "pairs", "videos") if name in given] == list(kind.needs.data)[:1]
    judges = [REWARDS.load(name).spec for name in run.evaluation.judges]
    trained = [plan.spec.name for plan in loading.plan(given["reward"], {})] if "reward" in given else []
    assert bool(trained) == (kind.needs.reward != "none")
    assert not {judge.name for judge in judges} & set(trained)
    assert any(judge.needs_prompt for judge in judges)
    specs = [*judges, *(REWARDS.load(name).spec for name in trained)]
    assert not any(spec.embedded_only for spec in specs)
    assert run.evaluation.num_prompts * run.evaluation.videos_per_prompt <= 24
    assert run.sampling.batch_size == 1


@pytest.mark.parametrize("one", ready(), ids=str)
def test_its_judges_need_no_more_than_the_files_that_it_names(
    one: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = one.path.read_text(encoding="utf-8")
    (said,) = re.findall(r"^# Judges' weights: (.*)$", text, re.MULTILINE)
    for name in re.findall(r"[\w.-]+\.pth?\b", said):
        (tmp_path / name).touch()
    monkeypatch.setenv("VPO_WEIGHTS", str(tmp_path))
    given = yaml.safe_load(text)
    for name in [*given["evaluation"]["judges"], *([given["reward"]] if "reward" in given else [])]:
        loading.locate(loading.plan(name, {}))


@pytest.mark.parametrize("one", ready(), ids=str)
def test_a_card_holds_what_was_planned(one: Ready) -> None:
    """With the headroom of every plan; `python -m benchmarks.recipes` makes the figures anew."""
    row = PLANNED[str(one)]
    assert row["peak"] <= HEADROOM * one.gigabytes * 10**9
    assert row["peak"] == max(row["bytes"].values())
    assert row["model"] == yaml.safe_load(one.path.read_text(encoding="utf-8"))["model"]


@pytest.mark.parametrize("one", ready(), ids=str)
def test_each_number_has_its_source(one: Ready) -> None:
    comments = [line for line in one.path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any("arXiv" in line for line in comments)
    assert any("docs/models.md" in line for line in comments)
    assert any(line.startswith("# First hour:") for line in comments)


def test_the_command_writes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.yaml"
    main_ok(["init", "wan2.1-1.3b", "--method", "online", "--memory", "24GB", "--output", path])
    assert path.read_bytes() == Ready("wan2.1-1.3b", "online", 24).path.read_bytes()
    assert f"vpo plan --config {path}" in capsys.readouterr().out
    main_ok(["init"])
    assert capsys.readouterr().out.splitlines() == [f"vpo init {one}" for one in ready()]


def test_the_largest_card_that_is_no_larger() -> None:
    assert shelf.find("wan2.1-1.3b", "dpo", 48) == Ready("wan2.1-1.3b", "dpo", 24)
    for family, method, size in (("wan2.1-1.3", "dpo", 24), ("wan2.1-14b", "dpo", 24), ("ltx", "kto", 24)):
        with pytest.raises(ConfigError, match=r"there are .*(wan2\.1-1\.3b|dpo|online)"):
            shelf.find(family, method, size)
