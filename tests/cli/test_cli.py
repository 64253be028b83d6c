"""Bad input to the real commands: one line, an exit code of 1 or 2, no traceback, nothing half-written."""

from __future__ import annotations

import gc
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support.commands import fails, main_ok

NAN_REWARD = "tests.support.brief_runs:Broken"


@pytest.fixture
def train(tiny_wan: Path, tmp_path: Path) -> list[object]:
    small = ["--set", "batch_size=1", "--set", "evaluation.num_prompts=1", "--set", "method.num_candidates=2"]
    return ["train", "--model", tiny_wan, "--output", tmp_path / "run", "--steps", 1, *small]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--method", "onlne"], 2, "unknown method 'onlne' (did you mean 'online'?)"),
        (["--reward", "vqq"], 2, "unknown reward 'vqq' (did you mean 'vqa'?)"),
        (["--reward", "vqa:-1"], 2, "weights above zero"),
        (["--reward", "gold"], 2, "held-out judge"),
        (["--model", "sprits"], 1, "no model 'sprits'"),
        (["--set", "lora.rnak=3"], 2, "unknown setting lora.rnak (did you mean 'rank'?)"),
        (["--set", "method.bta=3"], 2, "unknown setting method.bta (did you mean 'beta'?)"),
        (["--set", "method.num_candidates=1"], 2, "method.num_candidates"),
        (["--set", "health.disable=[moton_collapse]"], 2, "did you mean 'motion_collapse'?"),
        (["--steps", "0"], 2, "steps"),
        (["--prompts", "/none.txt"], 1, "cannot read /none.txt"),
        (["--config", "/none.yaml"], 2, "/none.yaml: No such file or directory"),
        (["--resume", "--overwrite"], 2, "give one of them"),
        (["--set", "attention=xformers"], 2, "attention: xformers"),
        (["--nonsense"], 2, "No such option"),
        (["--set", "sampling.frames=8"], 2, "the nearest that do are 9 frames of 32 x 32"),
        (["--reward", NAN_REWARD], 1, "reward 'broken' is not finite for the prompt"),
    ],
)
def test_bad_training_input(
    train: list[object],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
) -> None:
    found, shown = fails(capsys, *train, *arguments)
    assert (found, message in shown) == (code, True), shown
    if "No such option" not in message:
        assert shown.count("\n") == 1, shown
    assert not list(tmp_path.rglob("*.part*"))


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *((["sample", "--prompt", "a", "--output"], name) for name in ("seed", "model", "on_notice")),
        *((["pair", "--output"], name) for name in ("seed", "prompts", "quiet")),
        *((["label"], name) for name in ("path", "quiet")),
    ],
)
def test_what_is_no_setting_but_an_option(
    command: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = fails(capsys, *command, tmp_path / "out", "--set", f"{name}=3")
    assert (code, shown.count("\n"), f"--set {name}: no setting of this command" in shown) == (2, 1, True), shown
    assert not (tmp_path / "out").exists()


def test_bad_model_folders(
    train: list[object], tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    _, shown = fails(capsys, *train, "--model", empty)
    assert "holds no model_index.json" in shown
    broken = shutil.copytree(tiny_wan, tmp_path / "broken")
    weights = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(b"\xff" * 100)
    code, shown = fails(capsys, *train, "--model", broken)
    assert code == 1
    assert "is damaged or cut short" in shown
    assert shown.count("\n") == 1
    other = shutil.copytree(tiny_wan, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionPipeline"}))
    _, shown = fails(capsys, *train, "--model", other)
    assert "is a StableDiffusionPipeline: supported are AnimateDiffPipeline" in shown
    (other / "model_index.json").write_text("{")
    _, shown = fails(capsys, *train, "--model", other)
    assert "cannot read model_index.json" in shown


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00"])
def test_bad_prompt_files(
    train: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    code, shown = fails(capsys, *train, "--prompts", path)
    assert (code, "prompts.txt" in shown, shown.count("\n")) == (1, True, 1)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_kept(
    train: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_ok(train)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    code, shown = fails(capsys, *train)
    assert (code, "--resume" in shown, "--overwrite" in shown) == (1, True, True)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    _, shown = fails(capsys, *train, "--resume", "--seed", 5)
    assert "seed differ" in shown
    own = tmp_path / "run" / "notes.txt"
    own.write_text("mine")
    main_ok([*train, "--overwrite"])
    assert own.read_text() == "mine"
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("mine")
    code, shown = fails(capsys, *train, "--output", tmp_path / "files", "--overwrite")
    assert "is not empty and holds no run" in shown


def test_an_output_that_cannot_be_written(
    train: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, shown = fails(capsys, *train, "--output", tmp_path / "file" / "run")
    assert (code, "cannot write" in shown, shown.count("\n")) == (1, True, 1)
    code, shown = fails(capsys, *train, "--output", "/proc/vpo-run")  # read-only for root too
    assert (code, "cannot write" in shown, shown.count("\n")) == (1, True, 1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")  # noqa: PTH110
def test_a_full_disk(train: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    main_ok(train)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    (tmp_path / "run" / "metrics.jsonl").symlink_to("/dev/full")
    from vpo_kit.errors import OutputError
    from vpo_kit.training.run_folder import RunFolder

    with pytest.raises(OutputError, match="No space left on device"):
        RunFolder(tmp_path / "run").append({"step": 2})


def test_dry_run_loads_and_writes_nothing(
    train: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_wan: Path
) -> None:
    light = shutil.copytree(tiny_wan, tmp_path / "light")
    (light / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    main_ok([*train, "--model", light, "--dry-run"])
    shown = capsys.readouterr().out
    assert "num_candidates: 2" in shown
    assert "steps: 1" in shown
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_sample_score_eval_and_lists(
    train: list[object], tmp_path: Path, tiny_wan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_ok(train)
    run, out = tmp_path / "run", tmp_path / "out"
    main_ok(["sample", "--model", tiny_wan, "--lora", run, "--prompt", "a red circle", "--output", out])
    capsys.readouterr()
    main_ok(["score", out, "--reward", "vqa"])
    assert "000-0.mp4" in capsys.readouterr().out
    main_ok(["eval", run, "--output", tmp_path / "eval", "--num-prompts", 2, "--best-of", 0])
    results = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert {"vqa", "gold", "motion"} <= set(results["changes"]["run"])
    assert "text_accuracy" not in results["changes"]["run"]  # no truth: the model is of no made world
    page = (tmp_path / "eval" / "report.html").read_text()
    for source in [part.split('"')[0] for part in page.split('src="')[1:]]:
        assert (tmp_path / "eval" / source).is_file()
    for name in ("methods", "rewards", "models"):
        main_ok([name])
    assert "online" in capsys.readouterr().out
    for arguments, message in (
        (["score", tmp_path / "none"], "there is no"),
        (["sample", "--output", out, "--prompt", "x"], "is not empty"),
        (["eval", tmp_path / "none", "--output", tmp_path / "e2"], "holds no LoRA"),
        (["sample", "--output", tmp_path / "o2"], "give --prompt"),
    ):
        _, shown = fails(capsys, *arguments)
        assert message in shown
    _, shown = fails(capsys, "score", out, "--reward", "tests.support.brief_runs:Wordy")
    assert "reward 'wordy' judges a video by its prompt: give --prompt" in shown
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    _, shown = fails(capsys, "score", tmp_path / "bad.mp4")
    assert "bad.mp4" in shown
    gc.collect()  # imageio-ffmpeg leaves the pipes of an ffmpeg that failed to the garbage collector


def test_a_mixture_is_shown_part_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a mixture: name one of its rewards" in fails(capsys, "rewards", "vqa:0.5+technical:0.5")[1]
