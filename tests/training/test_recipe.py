"""What a recipe lacks is said with the option that gives it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vpo_kit.errors import ConfigError
from vpo_kit.training import recipe


@pytest.mark.parametrize("method", ["draft", "vader", "alignprop"])
def test_prompts_have_no_clip_to_start_from(method: str, tmp_path: Path) -> None:
    options = {"method": method, "reward": "vqa", "model": "sprites", "output": tmp_path / "run"}
    with pytest.raises(ConfigError, match=rf"^method\.start=clip: {method} learns from prompts, which have no clip: "):
        recipe.read(options, None, ["method.start=clip"])
    assert recipe.read(options, None, ["method.start=noise"]).data == "prompts"


def test_a_model_without_prompts_asks_for_both_kinds(tiny_wan: Path, tmp_path: Path) -> None:
    folder, prompts = tmp_path / "model", tmp_path / "prompts.txt"
    shutil.copytree(tiny_wan, folder, ignore=shutil.ignore_patterns("prompts"))
    prompts.write_text("a red circle\na blue square\n")
    options = {"method": "online", "reward": "vqa", "model": str(folder), "output": tmp_path / "run"}
    with pytest.raises(ConfigError, match=r"ships no heldout prompts: give --set evaluation\.prompts=FILE"):
        recipe.read(options, None, [])
    with pytest.raises(
        ConfigError, match=r"ships no train prompts: give --prompts=FILE, one prompt a line, or csv or jsonl"
    ):
        recipe.read(options, None, [f"evaluation.prompts={prompts}"])
