"""Files of version 0.1.0, as it wrote them (tests/data/v0.1.0): read, converted, or refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.commands import fails
from tests.support.places import DATA
from vpo_kit import config, formats
from vpo_kit.errors import ConfigError
from vpo_kit.library import entries
from vpo_kit.pairing import store
from vpo_kit.pairing.make import Folder
from vpo_kit.training import recipe

OLD = DATA / "v0.1.0"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "old")
    return tmp_path / "old"


def test_a_pair_set_is_read(old: Path) -> None:
    found = store.read(old / "pairs")
    assert not found.broken
    assert len(found.pairs) == 3
    assert all(store.problem(found.path, pair) is None for pair in found.pairs)


def test_a_recipe_means_what_it_meant(old: Path) -> None:
    """Every setting stands in the file; times were logit-normal and alpha 16 whatever the rank."""
    made = recipe.read({}, old / "dense/config.yaml", ["pairs=somewhere"])
    assert made.run.lora.rank == 1
    assert made.run.lora.alpha == 16
    times = made.method_config.times  # type: ignore[attr-defined]
    assert times.name == "logit_normal"
    assert (made.run.optimiser.lr, made.run.optimiser.schedule) == (1.5e-3, "constant")


def test_what_became_another_setting(old: Path) -> None:
    file = old / "dense/config.yaml"
    file.write_text(file.read_text().replace("low_memory: false", "low_memory: true"))
    assert recipe.read({}, file, ["pairs=somewhere"]).run.micro_batch_size == 1


@pytest.mark.parametrize(("change", "message"), [
    (("per: frame", "per: sum"), "method.per sum made the logit grow with the number of frames"),
    (("seed: 0", "seed: 0\nformat: 3"), "is of format 3, and this vpo reads up to 2"),
])  # fmt: skip
def test_what_cannot_be_converted_is_refused(old: Path, change: tuple[str, str], message: str) -> None:
    file = old / "dense/config.yaml"
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(ConfigError) as caught:
        recipe.read({}, file, ["pairs=somewhere"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tau_was_a_share_of_the_steps(old: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"method\.tau 0\.9 was a share of the chain's steps and is a noise level now"
    ):
        recipe.read({}, old / "instruct/config.yaml", ["videos=somewhere"])
    by_hand = tmp_path / "mine.yaml"
    by_hand.write_text("method: {name: instruct, tau: 0.5}\nvideos: somewhere\n")
    with pytest.raises(ConfigError, match=r"it says no format: write format: 2 on top where it is meant so"):
        recipe.read({}, by_hand, [])
    by_hand.write_text("format: 2\n" + by_hand.read_text())
    assert recipe.read({}, by_hand, []).method_config.tau == 0.5  # type: ignore[attr-defined]


def test_a_recipe_by_hand_that_says_nothing_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("method: online\nsteps: 3\n")
    assert recipe.read({}, file, []).run.steps == 3


def test_a_run_is_not_resumed(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (old / "dense").rglob("*") if path.is_file()}
    code, shown = fails(capsys, "train", "--resume", "--output", old / "dense")
    assert code == 2
    assert "this run was begun by vpo 0.1.0" in shown
    assert "finish it with 0.1.0, or begin anew" in shown
    assert {path: path.read_bytes() for path in (old / "dense").rglob("*") if path.is_file()} == before


def test_a_comparison_is_not_taken_up(old: Path) -> None:
    listing = old / "board" / entries.LISTING
    with pytest.raises(ConfigError, match=r"this comparison was begun by vpo 0\.1\.0"):
        formats.unchanged(config.read_file(listing), listing, "comparison")


def test_a_half_made_set_is_not_taken_up(old: Path) -> None:
    listing = old / "pairs/dataset.yaml"
    facts = config.read_file(listing)
    Folder(old / "pairs").check({"strategy": facts["strategy"], "format": 2})  # whole: it may be labelled anew
    (old / "pairs/metadata.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"this pair set was begun by vpo 0\.1\.0"):
        Folder(old / "pairs").check({"strategy": facts["strategy"], "format": 2})


def test_new_files_say_their_format(tmp_path: Path) -> None:
    assert config.FORMAT == 2
    (tmp_path / "r.yaml").write_text(config.dump(config.build({})))
    assert config.read_file(tmp_path / "r.yaml")["format"] == 2
    assert json.loads(config.build({}).model_dump_json())["format"] == 2
