"""The model card: facts of the run, a header that the hub reads, code that runs, and no text that becomes markup."""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import yaml
from markdown_it import MarkdownIt

from tests.support.commands import main_ok
from vpo_kit import config, models
from vpo_kit.config import Lora
from vpo_kit.evaluation import tables
from vpo_kit.evaluation.statistics import Paired, paired
from vpo_kit.library import card
from vpo_kit.library.card import RunOutcome, render
from vpo_kit.testing.families import FAMILIES
from vpo_kit.training import recipe
from vpo_kit.training.lora import LoraPolicy

CHANGES = {"vqa": paired([0.0, 1.0, 2.0], [1.0, 2.0, 3.5], [0, 1, 2])}


def header(text: str) -> dict[str, Any]:
    _, found, _ = text.split("---\n", 2)
    values: dict[str, Any] = yaml.safe_load(found)
    return values


def code(text: str) -> str:
    (found,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def run(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards") / "run"
    sets = ["batch_size=1", "evaluation.num_prompts=3", "method.num_candidates=2", "method.beta=77", "lora.rank=5"]
    flags = [part for text in sets for part in ("--set", text)]
    main_ok(["train", "--model", tiny_wan, "--output", folder, "--steps", 2, "--seed", 9, *flags])
    return folder


def test_the_card_of_a_run(run: Path, tiny_wan: Path) -> None:
    text, summary = (run / "lora" / "README.md").read_text(), json.loads((run / "summary.json").read_text())
    assert header(text)["library_name"] == "diffusers"
    assert "base_model" not in header(text)  # a folder of this machine is no name on the hub
    assert str(tiny_wan.parent) not in text
    for name, value in {"method.beta": "77.0", "LoRA rank": "5", "seed": "9", "optimiser steps": "2"}.items():
        assert f"| {name} | {value} |" in text
    for name, change in summary["changes"].items():
        shown = Paired(**{key: change[key] for key in {field.name for field in fields(Paired)}})
        row = " | ".join(["", card.escape(name), *tables.values(shown), card.escape(tables.span(shown))]).strip()
        assert row in text, row
    for name in ("vqa", "gold"):
        assert f"| {name} | Apache-2.0 |" in text
    assert "Health checks: passed." in text
    assert all(f"{name} {value}" in text for name, value in summary["versions"].items())
    assert "a red circle" in text


def test_the_code_on_the_card_runs(run: Path, tiny_wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In diffusers alone, beside the model's folder."""
    monkeypatch.chdir(tiny_wan.parent)
    found = code((run / "lora" / "README.md").read_text()).replace("path/to/this/folder", str(run / "lora"))
    names: dict[str, Any] = {}
    exec(found, names)
    assert isinstance(names["pipe"], diffusers.WanPipeline)
    assert names["pipe"].get_active_adapters() == ["default_0"]


@pytest.mark.parametrize("name", ["hunyuan1.5", "modelscope", "ltx"])
def test_code_of_families_whose_classes_lack_methods(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAMILIES[name].build().save_pretrained(tmp_path / "base", safe_serialization=True)
    model = models.load(str(tmp_path / "base"))
    LoraPolicy(model, Lora(rank=2, alpha=2), 0).export(tmp_path / "lora")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code(card._use("base", model)).replace("path/to/this/folder", "lora"), names)
    network = names["pipe"].components[model.network_name]
    assert len(network.peft_config) == 1


def test_names_and_prompts_are_no_markup() -> None:
    """Read back by a Markdown parser, every text is what it was."""
    texts = [
        "a *red* _circle_ | `code` <b>bold</b> [link](http://x) ![image](y)",
        "# not a heading", "- not a list", "1. not a list", "+ x", "=== \\ ~~gone~~ &amp; $x^2$",
    ]  # fmt: skip
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse("\n".join(card._item(text) for text in texts))
    inline = [token for token in tokens if token.type == "inline"]
    assert [child.type for token in inline for child in token.children or []].count("text") == len(inline) == len(texts)
    assert [token.children[0].content for token in inline if token.children] == texts
    assert {token.type for token in tokens} <= {
        "bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close",
        "paragraph_open", "paragraph_close", "inline",
    }  # fmt: skip
    rows = parser.parse(card._table(("a", "b"), [(texts[0], "1"), ("2", texts[0])]))
    cells = [token.children[0].content for token in rows if token.type == "inline" and token.children]
    assert cells == ["a", "b", texts[0], "1", "2", texts[0]]


def test_a_hub_model_and_a_stopped_run(tiny_wan: Path) -> None:
    made = recipe.check(config.build({"model": str(tiny_wan), "evaluation": {"num_prompts": 7}}))
    model = models.load(str(tiny_wan))
    hub = replace(made, run=made.run.model_copy(update={"model": "some-owner/some_model"}))
    text = render(hub, model, RunOutcome(steps=3, changes=CHANGES, health="stopped: motion_collapse"))
    assert header(text)["base_model"] == "some-owner/some_model"
    assert '.from_pretrained("some-owner/some_model")' in text
    assert "some-owner/some\\_model" in text
    assert "motion\\_collapse" in text
    assert "| vqa | 1.00 | 2.17 | +1.17 \\[+1.00, +1.50\\] |" in text
    assert "Among the prompts:" in text
    assert text.count("\n- ") == card.SHOWN + len(header(text)["tags"])
    sampling = made.run.sampling.model_copy(update={"lora": Path("/home/me/secret/few-steps")})
    distilled = replace(made, run=made.run.model_copy(update={"sampling": sampling}))
    shown = render(distilled, model, RunOutcome(steps=3, changes=CHANGES, health="passed"))
    assert "| sampling.lora | few-steps |" in shown
    assert "secret" not in shown
    quiet = render(hub, model, RunOutcome(steps=3, changes={}, health="passed"))
    assert "The run was not evaluated." in quiet
    assert "gold" not in quiet
    assert os.sep + "tmp" not in text
