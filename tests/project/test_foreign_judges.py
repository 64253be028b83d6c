"""A judge of the embedded world on another model: `vpo train` says so in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpo_kit.folders import EMBEDDED, is_embedded
from vpo_kit.training import recipe as recipes


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
