"""The quickstarts and the tutorial: every command of these pages is run, shrunk by settings alone."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.bright_pairs import works
from tests.support.places import ROOT
from vpo_kit.folders import prompts_of
from vpo_kit.prompts import read_prompts

pytestmark = pytest.mark.slow  # a minute each
FEW = ("sampling.steps=2", "sampling.frames=9", "evaluation.num_prompts=2", "validation.share=0.2")
TRAINED = (*FEW, "steps=2", "batch_size=2", "lora.rank=2", "selection.strengths=[]", "micro_batch_size=1")
Shrink = Mapping[str, Sequence[str]]


def sets(values: Sequence[str]) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run(page: str, shrink: Shrink, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks(page, "bash")
    for line in block.splitlines():
        vpo, *words = shlex.split(line)
        assert vpo == "vpo"
        name = next((name for name in sorted(shrink, key=len, reverse=True) if " ".join(words).startswith(name)), "")
        works(capsys, *words, *shrink.get(name, ()))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, with prompts to train on and others to report on, where commands and modules are looked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, which in (("prompts.txt", "train"), ("heldout.txt", "heldout")):
        source = prompts_of("sprites", which)
        assert source is not None
        (tmp_path / name).write_text("\n".join(read_prompts(source)[:4]) + "\n", encoding="utf-8")
    return tmp_path


def changes(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "summary.json").read_text())["changes"]
    return found


def test_a_real_model(here: Path, tiny_wan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe as it ships, but for a tiny pipeline of the same family and a judge that needs no download."""
    small = (
        "sampling.height=32",
        "sampling.width=32",
        "dtype=float32",
        "method.num_candidates=2",
        "evaluation.judges=[]",
        *TRAINED,
    )
    tiny = ["--model", str(tiny_wan), "--reward", "technical", *sets(small)]
    shrink = {"plan": tiny, "train": tiny, "eval": ["--num-prompts", "2", "--best-of", "0"]}
    run("start_model.md", shrink, capsys)
    assert changes(here / "runs" / "first")
    measured = json.loads((here / "results" / "results.json").read_text())
    assert "technical" in measured["changes"]["first"]
    assert not {"vqa", "gold"} & set(measured["changes"]["first"])  # they know the embedded model's world alone
    assert (here / "first.safetensors").is_file()


def test_clips_and_annotators(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a judge in the place of people, who would be waited for."""
    train = ["--set", "health.disable=[no_learning]", *sets(TRAINED)]
    shrink = {
        "pair --strategy": sets(FEW[:2]),
        "label": ["--with", "reward:technical"],
        "pair signal": ["--pairs", "8", *sets(("lora.rank=2",))],
        "train": train,
        "eval": ["--num-prompts", "2", "--best-of", "0"],
    }
    run("start_clips.md", shrink, capsys)
    assert changes(here / "runs" / "dense")


def test_a_part_of_your_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("start_plugin.md", "python")
    (here / "warm.py").write_text(code)
    shrink = {"train": sets(TRAINED), "eval": ["--num-prompts", "2", "--best-of", "0"]}
    try:
        run("start_plugin.md", shrink, capsys)
    finally:
        sys.modules.pop("warm", None)
    assert "warm" in changes(here / "runs" / "warm")


def test_from_clips_to_a_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared = ["--seeds", "1", "--budget", "optimiser_steps=2", "--methods", "sft,dense", *sets(TRAINED[:4])]
    compared += sets(("batch_size=2", "lora.rank=2", "selection.strengths=[]", "health.disable=[no_learning]"))
    shrink = {
        "clips": ["--count", "12"],
        "pair --strategy independent": ["--prompts", "prompts.txt", *sets(FEW[:2])],
        "pair --strategy guided": sets(FEW[:2]),
        "compare": compared,
    }
    run("table.md", shrink, capsys)
    assert {path.suffix for path in (here / "board").glob("results.*")} == {".json", ".md", ".csv", ".tex"}
    assert (here / "guided-hub" / "README.md").is_file()


def test_pairs_for_a_recipe(here: Path, tiny_wan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe as it ships is what pairs are made with, and trains on them."""
    works(capsys, "init", "wan2.1-14b", "--method", "dpo", "--memory", "80GB")
    tiny = ["--model", str(tiny_wan), *sets(("sampling.height=32", "sampling.width=32", "dtype=float32", *FEW[:2]))]
    run("families.md", {"pair": tiny, "label": ["--with", "reward:technical"]}, capsys)
    works(capsys, "train", "--config", "recipe.yaml", "--dry-run", *tiny, *sets(("evaluation.judges=[]",)))
