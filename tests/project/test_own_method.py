"""docs/own_method.md: its code is the example's, the example trains, and every entry-point group has its row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from tests.support.offline_run import make_set
from tests.support.places import ROOT
from tests.support.plugins import install
from vpo_kit import models, registry
from vpo_kit.cli import main
from vpo_kit.config import Lora
from vpo_kit.evaluation import features
from vpo_kit.methods.base import Batch
from vpo_kit.registry import METHODS, Registry
from vpo_kit.sampler import draw_noise
from vpo_kit.testing.steps import context_of, gradients
from vpo_kit.training.lora import LoraPolicy

EXAMPLE = ROOT / "examples" / "method_plugin"
PAGE = (ROOT / "docs" / "own_method.md").read_text()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module and its entry point, as Python sees an installed package."""
    install(EXAMPLE, tmp_path / "site", monkeypatch)


def test_the_page_shows_the_example_which_is_short() -> None:
    code = (EXAMPLE / "vpo_sure.py").read_text()
    (shown,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert shown == code
    assert len(code.splitlines()) <= 50


def test_every_group_has_its_row() -> None:
    held = [*vars(registry).values(), *vars(features).values()]
    groups = {each.group for each in held if isinstance(each, Registry)}
    assert set(re.findall(r"^\| `(vpo_kit\.\w+)` \|", PAGE, re.MULTILINE)) == groups


def test_without_doubt_it_is_dpo(installed: None, tiny_wan: Path) -> None:
    model = models.load(str(tiny_wan))
    policy = LoraPolicy(model, Lora(rank=2), seed=0)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(0.02)
    shape = model.latent_shape(9, 32, 32)
    batch = Batch(
        step=0,
        settings=model.settings,
        prompts=["a", "b"],
        conditions=model.encode_prompts(["a", "b"]),
        positions=[0, 1],
        indices=[0, 1],
        visits=[0, 0],
        tensors={
            "first": draw_noise(shape, [1, 2]),
            "second": draw_noise(shape, [3, 4]),
            "label": torch.tensor([1.0, -1.0]),
        },
    )

    def gradient(name: str, **settings: float) -> list[torch.Tensor]:
        context = context_of(policy, batch_size=2, scores=torch.tensor([[3.0, 1.0], [0.0, 0.5]]))
        kind = METHODS.load(name)
        return gradients(kind(kind.Config(beta=20.0, **settings), context).step(batch), policy.parameters)

    plain, sure, unsure = gradient("dpo"), gradient("sure", doubt=1e-9), gradient("sure", doubt=100.0)
    assert all(torch.equal(one, other) for one, other in zip(plain, sure, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(plain, unsure, strict=True))


def test_it_is_listed_and_trains(
    installed: None, tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = make_set(tmp_path / "pairs", model=str(tiny_wan))
    sets = [
        part
        for text in ("evaluation.num_prompts=0", "method.doubt=0.5", "batch_size=2", "selection.strengths=[]")
        for part in ("--set", text)
    ]
    for command in (
        ["methods", "sure"],
        [
            "train",
            "--method",
            "sure",
            "--model",
            tiny_wan,
            "--pairs",
            pairs,
            "--steps",
            1,
            "--output",
            tmp_path / "run",
            *sets,
        ],
    ):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in command])
        assert end.value.code == 0, capsys.readouterr().err
    assert "doubt" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["method"] == "sure"
