"""docs/own_model.md: its code is the example's, which is held against its pipeline, listed, and trained."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.commands import fails, main_ok
from tests.support.places import ROOT
from tests.support.plugins import install

EXAMPLE = ROOT / "examples" / "model_plugin"
PAGE = (ROOT / "docs" / "own_model.md").read_text(encoding="utf-8")
CALL = ["--call", "use_resolution_binning=false", "--call", "complex_human_instruction=null"]


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module and its entry point, as Python sees an installed package."""
    install(EXAMPLE, tmp_path / "site", monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline that ``python tiny.py FOLDER`` writes."""
    made = tmp_path_factory.mktemp("sana")
    torch.manual_seed(0)
    runpy.run_path(str(EXAMPLE / "tiny.py"))["build"]().save_pretrained(made)
    return made


def test_the_page_shows_the_example_which_is_short() -> None:
    shown = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    files = [(EXAMPLE / name).read_text(encoding="utf-8") for name in ("vpo_sana_video.py", "tiny.py")]
    assert shown[:2] == files
    assert f"in {len(files[0].splitlines())} lines" in PAGE
    (project,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert project in (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    assert " ".join(CALL) in PAGE


def test_it_is_its_pipeline(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_ok(["model", "check", folder, *CALL])
    shown = capsys.readouterr().out
    assert shown.startswith("SanaVideoPipeline, adapter vpo_sana_video:SanaVideoModel (vpo-sana-video 0.1.0)\n")
    assert "FAILS" not in shown
    assert "has no argument 'binning'" in fails(capsys, "model", "check", folder, "--call", "binning=false")[1]


def test_the_pages_test_runs(folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[2], names)
    names["test_it_is_its_pipeline"](str(folder))


def test_it_is_listed_with_its_package(capsys: pytest.CaptureFixture[str]) -> None:
    main_ok(["models"])
    assert "SanaVideoPipeline  model family of the package vpo-sana-video 0.1.0\n" in capsys.readouterr().out


def test_it_trains(folder: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle moving right\na blue square circling\n", encoding="utf-8")
    settings = {
        "sampling.frames": 9, "sampling.height": 32, "sampling.width": 32, "sampling.steps": 2, "batch_size": 1,
        "evaluation.num_prompts": 0, "selection.strengths": "[]",
    }  # fmt: skip
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    run = tmp_path / "run"
    main_ok(
        ["train", "--model", folder, "--method", "online", "--reward", "vqa", "--prompts", prompts, "--steps", 1,
         "--output", run, *sets]
    )  # fmt: skip
    assert json.loads((run / "summary.json").read_text())["model"] == str(folder)
    assert "from diffusers import SanaVideoPipeline" in (run / "lora" / "README.md").read_text()
