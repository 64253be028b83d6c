"""Where a judge's published weights are looked for, and what is said where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vpo_kit.errors import ModelError
from vpo_kit.registry import REWARDS
from vpo_kit.rewards import loading
from vpo_kit.rewards.parts.weights import FOLDER, WeightsSource, read_folder

FILE = WeightsSource(reward="one", what="One_1.pth", place="here", size="1 GB", licence="MIT")
TREE = WeightsSource(
    reward="two", what="the model folder a/Two-7B alone", place="here", size="1 GB", licence="MIT", folder=True
)


@pytest.mark.parametrize(("source", "name"), [(FILE, "One_1.pth"), (TREE, "Two-7B")])
def test_a_folder_of_weights(source: WeightsSource, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the published name, and only where no path is given; a file in the place of a folder is not taken."""
    monkeypatch.delenv(FOLDER, raising=False)
    with pytest.raises(ModelError, match=r"needs weights: download .* into a folder that VPO_WEIGHTS names, or give"):
        source.require(None)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with pytest.raises(ModelError, match=rf"there is no (file|folder) .*/{name}: download"):
        source.require(None)
    place = tmp_path / name
    if source.folder:
        place.touch()
        with pytest.raises(ModelError, match="there is no folder"):
            source.require(None)
        place.unlink()
        place.mkdir()
    else:
        place.touch()
    assert source.require(None) == place
    with pytest.raises(ModelError, match=r"there is no (file|folder) other"):
        source.require(Path("other"))


@pytest.mark.parametrize("name", ["fastvqa", "dover", "viclip", "videoscore", "videoreward", "hpsv3"])
def test_every_published_judge_can_look_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge of the evaluation is a name without settings: all that it asks for has a place in the folder."""
    assert name in REWARDS.builtins
    monkeypatch.setenv(FOLDER, str(tmp_path))
    plans = loading.plan(name, {})
    for _ in range(3):
        try:
            return loading.locate(plans)
        except ModelError as error:
            kind, path = str(error).removeprefix("there is no ").split(":")[0].split(" ", 1)
            assert Path(path).parent == tmp_path
            Path(path).mkdir() if kind == "folder" else Path(path).touch()
    raise AssertionError(f"{name} asks for more")


def test_the_tensors_of_all_files_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no \*\.safetensors"):
        read_folder(tmp_path)
    for name in "ab":
        save_file({name: torch.ones(1)}, tmp_path / f"{name}.safetensors")
    assert set(read_folder(tmp_path)) == {"a", "b"}
