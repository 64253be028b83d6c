"""The tutorial of rounds: every command of docs/rounds.md is run, shrunk by settings alone."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.support.bright_pairs import works
from tests.support.places import ROOT
from vpo_kit.files import sha256
from vpo_kit.folders import prompts_of
from vpo_kit.pairing import store
from vpo_kit.prompts import read_prompts
from vpo_kit.training.lora import WEIGHTS_NAME

PAGE = ROOT / "docs" / "rounds.md"
SMALL = ["sampling.steps=2", "sampling.frames=9"]
SHRINK = {
    "pair": ["--prompts", "prompts.txt", *(f"--set={one}" for one in SMALL)],
    "train": [f"--set={one}" for one in (
        "steps=2", "batch_size=2", "lora.rank=2", "validation.share=0", "evaluation.num_prompts=0",
        "selection.strengths=[0.5,1.0]", "selection.num_prompts=1",
    )],
    "eval": ["--num-prompts", "2", "--best-of", "0"],
}  # fmt: skip


def commands() -> list[list[str]]:
    (block,) = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    found = [shlex.split(line) for line in block.splitlines()]
    assert all(name == "vpo" for name, *_ in found)
    return [rest for _, *rest in found]


def test_the_page_shows_two_rounds_and_each_begins_where_the_last_one_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = prompts_of("sprites", "train")
    assert source is not None
    Path("prompts.txt").write_text("\n".join(read_prompts(source)[:3]) + "\n", encoding="utf-8")
    listed = commands()
    assert [command[0] for command in listed] == ["pair", "train", "pair", "train", "eval"]
    for command in listed:
        works(capsys, *command, *SHRINK[command[0]])
    first, second = (store.read(Path(f"rounds/pairs-{number}")) for number in (1, 2))
    lora = Path("rounds/run-1/lora") / WEIGHTS_NAME
    assert first.facts["lora"] is None
    assert list(second.facts["lora"].values()) == [sha256(lora)]
    assert len(first.pairs) == len(second.pairs) == 3
    assert not {pair.sha256.latents for pair in first.pairs} & {pair.sha256.latents for pair in second.pairs}
    settings = yaml.safe_load(Path("rounds/run-2/config.yaml").read_text())
    assert settings["lora"]["init"] == "rounds/run-1"
    begun, ended = (load_file(Path(f"rounds/run-{number}/lora") / WEIGHTS_NAME) for number in (1, 2))
    assert any(not torch.equal(value, begun[key]) for key, value in ended.items() if key in begun) or (
        begun.keys() != ended.keys()
    )
    found = json.loads(Path("rounds/eval/results.json").read_text())
    assert set(found["changes"]) == {"run-1", "run-2"}
