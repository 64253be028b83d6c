"""The build of the second model in little: where it starts, that it goes on where it was stopped, what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vpo_kit import folders, models
from vpo_kit.config import read_file
from vpo_kit.duets import build, world
from vpo_kit.duets.truth import DuetTruth
from vpo_kit.prompts import read_prompts
from vpo_kit.sprites.build import measure, train
from vpo_kit.truth import truth_of

LITTLE: dict[str, Any] = {"clips": 3, "batch": 2, "lr": 1e-3, "bf16": False}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("duets")
    build.build(place / "work", place / "pipeline", steps=2, **LITTLE)
    return place


def test_it_starts_as_the_embedded_model_with_a_word_more() -> None:
    own, shipped = build.made(), models.load("sprites")
    both = build.start(len(own.tokenizer))
    words = [world.parse(text) for text in own.captions["validation"][:2]]
    old, _ = own.tokens([words[0].first.caption])
    tokens, mask = own.tokens([duet.caption for duet in words])
    assert tokens.shape == (2, build.MAX_WORDS)
    assert int((tokens == own.tokenizer.unk_token_id).sum()) == 0
    assert int(mask.sum(1).min()) >= 16
    with torch.no_grad():
        hidden = both["text"](old[:, :16]).last_hidden_state
        known = shipped.pipeline.text_encoder(old[:, :16]).last_hidden_state
    torch.testing.assert_close(hidden, known, atol=1e-3, rtol=0)
    theirs = shipped.network.state_dict()
    for key, value in both["transformer"].state_dict().items():
        torch.testing.assert_close(value, theirs[key].float(), msg=key)


def test_what_it_writes_is_a_model_of_its_world(built: Path) -> None:
    folder = built / "pipeline"
    model = models.load(str(folder))
    captions = read_prompts(folder / "prompts" / "heldout.txt")
    assert truth_of(model, model.settings, captions) is not None
    assert [len(read_prompts(folder / "prompts" / f"{name}.txt")) for name in ("train", "validation")] == [688, 128]
    assert read_prompts(folders.prompts_of(str(folder), "heldout") or Path()) == captions
    video = measure.sampled(model, captions[:2], 0, 2)
    assert video.shape == (2, 17, 3, 64, 64)
    found = measure.means(DuetTruth(), video, captions[:2])
    # the embedded model draws one sprite of two asked for, and two steps have taught it nothing
    assert 0 <= found["colour"] <= 1
    assert found["background"] == 1.0
    recipe = read_file(folder / "recipe.yaml")
    assert "preview" not in json.dumps(recipe)
    assert recipe["methods"]["online"]["values"]["method"]["num_candidates"] == 8
    text = (folder / "recipe.yaml").read_text()
    assert "found on the embedded model" not in text
    assert not [path for path in folder.rglob("config.json") if "_name_or_path" in path.read_text(encoding="utf-8")]
    assert "# The embedded model's settings (sprites), not tuned on this one." in text


def test_it_goes_on_where_it_was_stopped(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of one step, given again with two, is the undisturbed run; what is encoded is not encoded again."""
    fit = train.fit

    def stopped(model: Any, loss: Any, **settings: Any) -> None:
        def once(step: int) -> Any:
            if step == 1:
                raise InterruptedError
            return loss(step)

        fit(model, once, **{**settings, "save_every": 1})

    monkeypatch.setattr(train, "fit", stopped)
    with pytest.raises(InterruptedError):
        build.build(tmp_path / "work", tmp_path / "pipeline", steps=2, **LITTLE)
    monkeypatch.setattr(train, "fit", fit)
    assert not (tmp_path / "pipeline").exists()
    monkeypatch.setattr(world, "render", lambda *_: pytest.fail("drawn again"))
    build.build(tmp_path / "work", tmp_path / "pipeline", steps=2, **LITTLE)
    file = "transformer/diffusion_pytorch_model.safetensors"
    ours, theirs = (load_file(place / "pipeline" / file) for place in (tmp_path, built))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
