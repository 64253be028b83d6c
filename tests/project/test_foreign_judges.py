"""A judge of the embedded world on another model: `vpo train` says so in one line, and ready recipes do not use one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.places import ROOT
from vpo_kit.folders import EMBEDDED, is_embedded
from vpo_kit.rewards import loading
from vpo_kit.training import recipe as recipes

CONFIGS = ROOT / "configs"


@pytest.mark.parametrize(
    ("model", "reward", "named"),
    [
        ("sprites", "vqa", []),
        ("{tiny}", "technical", []),
        ("{tiny}", "vqa", ["vqa"]),
        ("{tiny}", "vqa:0.5+technical:0.5", ["vqa"]),
    ],
)
def test_a_judge_of_another_world_is_named(tiny_wan: Path, model: str, reward: str, named: list[str]) -> None:
    options = {"model": model.format(tiny=tiny_wan), "reward": {"name": reward}}
    found = recipes.foreign_rewards(recipes.read(options, None, []))
    assert [line.split("'")[1] for line in found] == named
    assert all("docs/judges.md" in line and "\n" not in line for line in found)


def test_the_embedded_model_is_known_by_name_and_by_folder() -> None:
    assert is_embedded("sprites")
    assert is_embedded(str(EMBEDDED["sprites"]))
    assert not is_embedded("owner/name")


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.name)
def test_ready_recipes_for_real_models_take_no_judge_of_the_embedded_world(file: Path) -> None:
    recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    if is_embedded(recipe.get("model", "sprites")) or "reward" not in recipe:
        return
    assert not [plan.spec.name for plan in loading.plan(recipe["reward"], {}) if plan.spec.embedded_only]
