"""The library's face: nothing heavy at import, what the commands do as functions, one model section in all of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import vpo_kit
from tests.support.commands import fails, main_ok
from tests.support.places import ROOT
from vpo_kit import files
from vpo_kit.config import Model
from vpo_kit.errors import ConfigError, DataError, OutputError
from vpo_kit.library.bench import Bench, EvaluateRequest
from vpo_kit.library.train import Trained
from vpo_kit.pairing import store
from vpo_kit.training import sections

PROMPT = "a red circle moving right slowly on a navy background"
PAGE = ROOT / "docs" / "python.md"


def test_import_is_light() -> None:
    code = (
        "import sys, vpo_kit\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(callable(getattr(vpo_kit, name)) for name in vpo_kit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        vpo_kit.trian  # noqa: B018


@pytest.fixture(scope="module")
def run(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One large step, at other sizes and in another precision than the model's own."""
    return vpo_kit.train(
        "draft",
        reward="vpo_kit.testing.rewards:Brightness",
        model=str(tiny_wan),
        output=tmp_path_factory.mktemp("runs") / "small",
        steps=1,
        batch_size=2,
        quiet=True,
        dtype="bfloat16",
        sampling={"frames": 5, "steps": 2, "batch_size": 4},
        lora={"rank": 2},
        optimiser={"lr": 0.3},
        evaluation={"num_prompts": 0},
    )


def test_a_run_says_how_it_ended(run: Trained) -> None:
    assert run.summary["steps"] == 1
    assert run.summary["health"]["ok"]
    assert (run.lora / "pytorch_lora_weights.safetensors").is_file()


def test_settings_of_the_run_below_the_file_below_what_is_given(run: Trained, tiny_wan: Path, tmp_path: Path) -> None:
    own = sections.read(Model, {}, run=run.folder)
    assert (own.model, own.dtype, own.sampling.frames) == (str(tiny_wan), "bfloat16", 5)
    recipe = tmp_path / "recipe.yaml"  # of a training: what has no place here is left out
    recipe.write_text("method: dpo\npairs: nowhere\nsampling: {frames: 9}\nattention: sdpa\n")
    found = sections.read(Model, {"dtype": "float32"}, recipe, run.folder)
    assert (found.dtype, found.attention, found.sampling.frames, found.sampling.steps) == ("float32", "sdpa", 9, 2)
    recipe.write_text("smapling: {frames: 9}\n")
    with pytest.raises(ConfigError, match=r"unknown setting smapling.*sampling"):
        sections.read(Model, {}, recipe)


def test_another_models_revision_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: a/b\nrevision: old\ndtype: bfloat16\n")
    assert sections.read(Model, {}, run=tmp_path).revision == "old"
    other = sections.read(Model, {"model": "c/d"}, run=tmp_path)
    assert (other.model, other.revision, other.dtype) == ("c/d", None, "bfloat16")


def test_samples_look_as_they_did_in_training(run: Trained, tmp_path: Path) -> None:
    (small,) = vpo_kit.sample(PROMPT, lora=run.folder)
    assert small.frames.shape == (5, 3, 32, 32)
    main_ok(["sample", "--lora", run.folder, "--prompt", PROMPT, "--output", tmp_path, "--set", "sampling.frames=9"])
    assert (tmp_path / "000-0.mp4").is_file()
    with torch.no_grad():
        (base,) = vpo_kit.sample(PROMPT, model=run.summary["model"], sampling={"frames": 5, "steps": 2})
    assert float((small.frames - base.frames).abs().max()) > 0.01


def test_a_loaded_model_is_left_as_it_was(run: Trained) -> None:
    model = vpo_kit.load_model(run.summary["model"])
    own = model.settings
    bare, (trained,) = vpo_kit.sample(PROMPT, model=model), vpo_kit.sample(PROMPT, model=model, lora=run.folder)
    assert model.settings == own
    (shifted,) = vpo_kit.sample(PROMPT, model=model, sampling={"shift": 9.0})
    assert float((shifted.frames - bare[0].frames).abs().max()) > 0.01
    assert trained.frames.shape[0] == 5
    torch.testing.assert_close(vpo_kit.sample(PROMPT, model=model)[0].frames, bare[0].frames, atol=0, rtol=0)
    with pytest.raises(ConfigError, match="dtype: the model is loaded already"):
        vpo_kit.sample(PROMPT, model=model, dtype="bfloat16")
    for_good = vpo_kit.load_model(lora=run.folder)
    torch.testing.assert_close(vpo_kit.sample(PROMPT, model=for_good)[0].frames, trained.frames, atol=0.05, rtol=0)
    for more in ({"lora": run.folder}, {"sampling": {"lora": run.folder / "lora"}}):  # taken off, it would take both
        with pytest.raises(ConfigError, match="the loaded model has a LoRA already"):
            vpo_kit.sample(PROMPT, model=for_good, **more)


def test_a_sampled_video_is_judged_as_its_frames_are(run: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    (video,) = vpo_kit.sample(PROMPT, lora=run.folder)
    reward = vpo_kit.load_reward("vqa")
    (found,) = vpo_kit.score(video, reward)
    expected = reward.fixed(video.frames[None], [PROMPT], fps=video.fps).score
    assert found.scores["vqa"] == pytest.approx(float(expected), abs=1e-5)
    assert found.name == PROMPT
    video.save(run.folder / "one.mp4")
    assert "no such device" in fails(capsys, "score", run.folder / "one.mp4", "--device", "cuda:77")[1]


def test_pairs_of_a_trained_model(run: Trained, tmp_path: Path) -> None:
    settings = {"label": "none", "prompts": run.folder.parent / "one.txt", "quiet": True}
    (run.folder.parent / "one.txt").write_text(PROMPT + "\n")
    trained = vpo_kit.make_pairs(tmp_path / "trained", lora=run.folder, **settings)
    sizes = {"model": run.summary["model"], "dtype": "bfloat16", "sampling": {"frames": 5, "steps": 2, "batch_size": 4}}
    base = vpo_kit.make_pairs(tmp_path / "base", **settings, **sizes)
    assert trained.pairs[0].frames == 5
    one, other = (store.read_latents(s.path / s.pairs[0].latents)["first"] for s in (trained, base))
    assert float((one - other).abs().max()) > 0.01
    facts = yaml.safe_load((trained.path / "dataset.yaml").read_text())
    assert list(facts)[:4] == ["format", "strategy", "model", "lora"], "as a person would ask, not by the alphabet"
    assert len(facts["lora"][""]) == 64
    assert facts["settings"]["dtype"] == "bfloat16"
    with pytest.raises(ConfigError, match="was begun with another lora"):
        vpo_kit.make_pairs(trained.path, **settings, **sizes)


def test_a_run_is_evaluated_at_its_own_sizes(run: Trained, tmp_path: Path) -> None:
    bench = Bench(EvaluateRequest(runs=[run.folder], output=tmp_path / "eval", settings={"offload": False}))
    assert (bench.wanted.dtype, bench.sampling.frames, bench.plan.settings.steps) == ("bfloat16", 5, 2)
    with pytest.raises(ConfigError, match="was begun with another weights"):
        Bench(EvaluateRequest(runs=[run.folder], output=tmp_path / "eval", settings={"dtype": "float32"}))


def test_every_run_of_an_evaluation_has_a_name_of_its_own(run: Trained, tmp_path: Path) -> None:
    """The numbers of runs that are called alike stay clear of names that end in such a number."""
    places = [tmp_path / place for place in ("a/online-3", "b/online", "c/online", "d/base", "e/online-3", "f/online")]
    for place in places:
        shutil.copytree(run.folder, place)
    bench = Bench(EvaluateRequest(runs=places, output=tmp_path / "eval"))
    assert bench.labels == ["base", "online-3", "online", "online-4", "base-4", "online-3-5", "online-6"]
    assert list(bench.loras.values()) == places


def test_a_run_on_a_published_model_is_judged_as_it_was_trained(
    run: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its own prompts, reward and judges; those of the embedded model's world mean nothing there."""
    folder, held = tmp_path / "own", tmp_path / "heldout.txt"
    shutil.copytree(run.folder, folder)
    held.write_text(f"{PROMPT}\nanother\n")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["reward"] = {"name": "technical"}
    settings["evaluation"] |= {"prompts": str(held), "judges": ["vqa", "natural", "technical"]}

    def bench(name: str, **more: Any) -> Bench:
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        return Bench(EvaluateRequest(runs=[folder], output=tmp_path / name, **more))

    found = bench("a")
    assert [plan.spec.name for plan in found.plans] == ["technical", "natural"]
    assert [item.prompt for item in found.items] == [PROMPT, "another"]
    assert "means little" not in capsys.readouterr().out
    assert [plan.spec.name for plan in bench("b", rewards=["natural"]).plans] == ["natural", "gold"]
    settings["reward"], settings["evaluation"]["judges"] = {"name": "vqa"}, []
    assert [plan.spec.name for plan in bench("c").plans] == ["vqa", "gold"]
    assert "warning: vqa, gold: judges of the embedded model's world" in capsys.readouterr().out
    with pytest.raises(DataError, match="reward 'text' reads captions of the embedded worlds alone, not 'another'"):
        bench("d", rewards=["text"])


def test_an_evaluation_says_which_prompts_a_run_was_trained_on(
    run: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run keeps out as many prompts as its own evaluation takes; one of more would tell what was learned by heart."""
    folder, both = tmp_path / "own", tmp_path / "both.txt"
    shutil.copytree(run.folder, folder)
    both.write_text("a\nb\nc\nd\n")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["prompts"], settings["evaluation"] = str(both), {"prompts": str(both), "num_prompts": 1}

    def said(**more: Any) -> str:
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        Bench(EvaluateRequest(runs=[folder], output=tmp_path / "out", rewards=["natural"], **more))
        return capsys.readouterr().out

    assert "warning: own was trained on 3 of 4 prompts, 'b' for one: they are not held out" in said()
    assert "trained on" not in said(num_prompts=1)
    settings["prompts"] = str(tmp_path / "gone.txt")
    assert "not known whether own was trained on some of these prompts: cannot read" in said()


def test_a_folder_is_evaluated_into_by_one_command(run: Trained, tmp_path: Path) -> None:
    with files.held(tmp_path / "out"), pytest.raises(OutputError, match="in use by another evaluation: wait, or give"):
        vpo_kit.evaluate(run.folder, tmp_path / "out", reward="natural", num_prompts=1)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first block as it stands; what a notebook would show is a player."""
    (block, *_) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(block.splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    shown = names["after"]._repr_html_()  # type: ignore[attr-defined]
    assert shown.startswith("<video")
    assert "data:video/mp4;base64," in shown
