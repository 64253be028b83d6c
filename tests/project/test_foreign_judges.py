"""A judge of the embedded world on another model: what trains, labels or measures with it says so in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.offline_run import make_set
from vpo_kit import label
from vpo_kit.folders import EMBEDDED, is_embedded
from vpo_kit.rewards import loading


@pytest.mark.parametrize(
    ("model", "reward", "named"),
    [
        ("sprites", "vqa", ""),
        ("{tiny}", "technical", ""),
        ("{tiny}", "vqa", "vqa: a judge of"),
        ("{tiny}", "vqa:0.5+technical:0.5", "vqa: a judge of"),
        ("{tiny}", "vqa:0.5+gold:0.5", "vqa, gold: judges of"),
        ("owner/name", "vqa", "vqa: a judge of"),
    ],
)
def test_a_judge_of_another_world_is_named(tiny_wan: Path, model: str, reward: str, named: str) -> None:
    place = model.format(tiny=tiny_wan)
    found = loading.foreign(loading.plan(reward, {}), place)
    assert [line.startswith(f"warning: {named}") for line in found] == [True] * bool(named)
    assert all(place in line and "docs/judges.md" in line and "\n" not in line for line in found)


def test_labels_say_so_too(tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every label of a set on a published model by the default judge would be noise, and nobody would know."""
    for name, model, doubted in (("own", "sprites", False), ("other", str(tiny_wan), True)):
        label(make_set(tmp_path / name, model=model), "reward:vqa")
        assert ("warning: vqa: a judge of the embedded model's world" in capsys.readouterr().out) == doubted


def test_the_embedded_model_is_known_by_name_and_by_folder() -> None:
    assert is_embedded("sprites")
    assert is_embedded(str(EMBEDDED["sprites"]))
    assert not is_embedded("owner/name")
