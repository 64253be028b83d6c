"""What needs no weights is checked before they are read, by the run and by its dry run alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.support.offline_run import make_set
from vpo_kit import config, folders
from vpo_kit.cli import main
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.library.checks import check_processes
from vpo_kit.pairing import store
from vpo_kit.pairing.usable import usable
from vpo_kit.training import recipe
from vpo_kit.video import write_video

Fails = Callable[..., str]


@pytest.fixture(params=[[], ["--dry-run"]], ids=["run", "dry run"])
def refused(
    request: pytest.FixtureRequest,
    tiny_wan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Fails:
    """`vpo train` on the tiny model, which must end in one line before the model is loaded."""
    monkeypatch.setattr("vpo_kit.models.load", lambda *_, **__: pytest.fail("loaded"))

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as end:
            main(["train", "--model", str(tiny_wan), "--output", str(tmp_path / "run"), *map(str, arguments),
                  *request.param])  # fmt: skip
        assert end.value.code in (1, 2)
        assert not (tmp_path / "run").exists()
        return capsys.readouterr().err

    return run


def test_prompts_that_are_all_held_out(refused: Fails, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a dog\na cat\n")
    same = ("--prompts", tmp_path / "p.txt", "--set", f"evaluation.prompts={tmp_path / 'p.txt'}")
    assert "2 of 2 prompts are of prompts that are held out" in refused(*same)


def test_held_out_prompts_that_a_judge_cannot_read(refused: Fails, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a dog\na cat\n")
    (tmp_path / "h.txt").write_text("a horse\n")
    same = ("--prompts", tmp_path / "p.txt", "--set", f"evaluation.prompts={tmp_path / 'h.txt'}")
    assert "captions of the embedded worlds alone, not 'a horse'" in refused(*same, "--set", "evaluation.judges=[text]")


def test_a_pair_set_that_is_not_there(refused: Fails, tmp_path: Path) -> None:
    assert "is no pair set" in refused("--method", "dense", "--pairs", tmp_path / "none")


def test_a_pair_set_without_labels(refused: Fails, tmp_path: Path) -> None:
    found = store.read(make_set(tmp_path / "pairs"))
    blank = {"label": None, "labels": None, "scores": None}
    store.write(found.path, found.facts, [pair.model_copy(update=blank) for pair in found.pairs])
    assert "ties or have no label" in refused("--method", "dense", "--pairs", found.path)


@pytest.mark.parametrize("label", [None, 0])
@pytest.mark.parametrize("method", ["sft", "instruct"])
def test_pairs_without_a_winner_and_without_the_clip_they_came_from(
    refused: Fails, tmp_path: Path, method: str, label: int | None
) -> None:
    found = store.read(make_set(tmp_path / "pairs"))
    blank = {"label": label, "strategy": "independent", "source": None}
    store.write(found.path, found.facts, [pair.model_copy(update=blank) for pair in found.pairs])
    reward = () if method == "sft" else ("--reward", "vpo_kit.testing.rewards:Brightness")
    assert "ties or have no label" in refused("--method", method, "--pairs", found.path, *reward)


def test_clips_without_captions(refused: Fails, tmp_path: Path) -> None:
    assert "there is no folder" in refused("--method", "sft", "--videos", tmp_path / "clips")
    write_video(tmp_path / "clips" / "a.mp4", torch.rand(9, 3, 32, 32), 8)
    assert "a.mp4 has no caption" in refused("--method", "sft", "--videos", tmp_path / "clips")
    (tmp_path / "clips" / "a.txt").write_text("a dog")
    assert "has no verdicts" in refused("--method", "kto", "--videos", tmp_path / "clips")


@pytest.mark.parametrize("option", ["--reward=dover", "--set=evaluation.judges=[dover]"])
def test_weights_of_a_judge(refused: Fails, option: str) -> None:
    assert "download DOVER.pth" in refused(option)


def test_a_model_without_what_the_method_asks_for(refused: Fails, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a dog\n")
    option = ("--set", "method.rollout_decoder=preview")
    assert "has no preview_decoder" in refused("--method", "nft", "--prompts", tmp_path / "p.txt", *option)


def test_a_size_that_does_not_fit(refused: Fails) -> None:
    said = refused("--set", "evaluation.num_prompts=1", "--set", "sampling.frames=8")
    assert "the nearest that do are 9 frames of 32 x 32" in said


def test_a_dry_run_says_what_it_leaves_open(tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.txt").write_text("a dog\n")
    with pytest.raises(SystemExit) as end:
        main(["train", "--model", str(tiny_wan), "--prompts", str(tmp_path / "p.txt"), "--dry-run"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert f"# not checked: the weights of {tiny_wan}\n# not checked: memory and time" in shown


class TestSizeOfASet:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Path:
        path = make_set(tmp_path / "pairs", shape=(8, 2, 2, 2), model="tiny")
        found = store.read(path)
        size = {"frames": 5, "height": 16, "width": 16, "fps": 4.0, "steps": 3, "guidance": 1.0}
        store.write(path, {**found.facts, "sampling": size}, found.pairs)
        return path

    def test_a_run_takes_it(self, small: Path, tiny_wan: Path) -> None:
        given = {"model": str(tiny_wan), "method": "dense", "pairs": str(small)}
        made = recipe.complete(given).run.sampling
        assert (made.frames, made.height, made.width, made.fps, made.steps) == (5, 16, 16, 4.0, None)
        assert recipe.complete({**given, "sampling": {"frames": 9}}).run.sampling.frames == 9

    def test_another_size_is_explained(self, small: Path) -> None:
        with pytest.raises(DataError, match=r"made at 5 frames of 16 x 16, which the run takes"):
            usable(store.read(small), (8, 3, 4, 4), lambda _: True, lambda _: None)

    def test_an_older_set_has_none(self, tmp_path: Path) -> None:
        assert store.sampling(make_set(tmp_path / "pairs")) == {}


def test_one_model_by_two_names(tmp_path: Path) -> None:
    assert folders.same("sprites", str(folders.EMBEDDED["sprites"]))
    (tmp_path / "link").symlink_to(folders.EMBEDDED["sprites"])
    assert folders.same("sprites", str(tmp_path / "link"))
    assert not folders.same("sprites", "owner/sprites")


@pytest.mark.parametrize(
    "setting",
    [{"activation_offload": True}, {"group_offload": True, "gradient_checkpointing": True}, {"quantise": "fp8"}],
)
def test_what_does_not_go_with_a_sharded_network(setting: dict[str, Any]) -> None:
    run = config.build(setting)
    check_processes(run, SimpleNamespace(count=2, sharded=False))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"^{next(iter(setting))}: "):
        check_processes(run, SimpleNamespace(count=2, sharded=True))  # type: ignore[arg-type]
