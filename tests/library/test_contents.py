"""A run that goes on does so with what it began with, whatever lies under the same name by now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from tests.conftest import PROMPTS
from tests.support.commands import fails, main_ok
from tests.support.kept_videos import write_once
from vpo_kit.errors import ConfigError
from vpo_kit.inputs import Shade
from vpo_kit.library import contents
from vpo_kit.rewards.natural import SHIPPED
from vpo_kit.training import recipe as recipes


@pytest.fixture
def run(tiny_wan: Path, tmp_path: Path) -> list[object]:
    (tmp_path / "held.txt").write_text(PROMPTS[3] + "\n")
    (tmp_path / "clips").mkdir()
    for i in range(2):
        write_once(tmp_path / "clips" / f"{i}.mp4", Shade(i).read(32, 32).expand(12, -1, -1, -1), 8)
        (tmp_path / "clips" / f"{i}.txt").write_text(PROMPTS[i])
    return [
        "train", "--model", tiny_wan, "--method", "sft", "--videos", tmp_path / "clips", "--output", tmp_path / "run",
        "--seed", 0, "--set", f"evaluation.prompts={tmp_path / 'held.txt'}", "--set", "evaluation.judges=[]",
        "--set", "sampling.steps=2", "--set", "selection.strengths=[]", "--set", "validation.share=0",
        "--set", "batch_size=2", "--set", "evaluation.num_prompts=1",
    ]  # fmt: skip


def test_what_has_changed_is_named(run: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_ok([*run, "--steps", 1])
    kept = (tmp_path / "run" / "contents.json").read_text()
    assert {"held-out prompts", "videos"} <= set(json.loads(kept))
    main_ok([*run, "--steps", 2, "--resume"])
    (tmp_path / "clips" / "0.txt").write_text("another caption")
    (tmp_path / "held.txt").write_text(PROMPTS[2] + "\n")
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*"))
    code, said = fails(capsys, *run, "--steps", 3, "--resume")
    assert (code, "the held-out prompts and the videos changed since the run in" in said) == (2, True), said
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*")) == before
    (tmp_path / "run" / "contents.json").write_text("{")
    assert "contents.json is damaged" in fails(capsys, *run, "--steps", 3, "--resume")[1]
    (tmp_path / "run" / "contents.json").unlink()  # as an older version left it
    main_ok([*run, "--steps", 3, "--resume"])
    assert json.loads((tmp_path / "run" / "contents.json").read_text()) != json.loads(kept)


@pytest.mark.parametrize("what", ["model", "LoRA of lora.init", "judge's file"])
def test_other_weights_under_the_same_name(tiny_wan: Path, tmp_path: Path, what: str) -> None:
    """As another training would leave them there."""
    model, judge = shutil.copytree(tiny_wan, tmp_path / "model"), tmp_path / "natural.safetensors"
    judge.write_bytes(SHIPPED.read_bytes())
    lora = tmp_path / "lora" / "pytorch_lora_weights.safetensors"
    lora.parent.mkdir()
    save_file({"lora_A.weight": torch.ones(2, 4)}, lora)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS[:2]))
    (tmp_path / "held.txt").write_text(PROMPTS[3])
    recipe = recipes.read(
        {
            "model": str(model), "reward": {"name": "natural", "weights": str(judge)}, "method": "online",
            "prompts": tmp_path / "prompts.txt", "lora": {"init": lora.parent},
            "evaluation": {"prompts": tmp_path / "held.txt"}, "selection": {"strengths": []},
        }, None, [],
    )  # fmt: skip
    console = Console(quiet=True)
    contents.keep(contents.of(recipe, console), tmp_path)
    (model / "README.md").write_text("of no weight")
    contents.check(contents.of(recipe, console), tmp_path)
    networks = {"model": model / "transformer" / "diffusion_pytorch_model.safetensors", "LoRA of lora.init": lora}
    path = networks.get(what, judge)
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)
    with pytest.raises(ConfigError, match=f"^--resume: the {what}[^,]* changed since the run"):
        contents.check(contents.of(recipe, console), tmp_path)
