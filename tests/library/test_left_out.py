"""What training keeps out, and what an evaluation finds was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.offline_run import make_set
from vpo_kit.errors import DataError
from vpo_kit.library import left_out
from vpo_kit.pairing import arrange, store
from vpo_kit.training import recipe as recipes


def recipe(model: Path, heldout: Path, count: int = 48, **data: Any) -> recipes.Recipe:
    evaluation = {"prompts": str(heldout), "num_prompts": count, "judges": ["natural"]}
    own = {"model": str(model), "reward": "technical", "evaluation": evaluation, "selection": {"strengths": []}}
    return recipes.complete({**own, **data})


def words(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_prompt_is_known_by_its_words(tiny_wan: Path, tmp_path: Path) -> None:
    """A table's cell may have a line break where the file of held-out prompts has a space."""
    one = recipe(tiny_wan, words(tmp_path / "heldout.txt", "a red cat"), prompts=str(words(tmp_path / "p.txt", "x")))
    said: list[str] = []
    assert left_out.apart(one, ["a red\n cat", "a dog"], str, "pairs", said.append) == ["a dog"]
    assert said == ["left out: 1 of 2 pairs are of prompts that are held out, 'a red\\n cat' for one"]
    with pytest.raises(DataError, match="nothing is left to train on"):
        left_out.apart(one, ["a  red cat"], str, "pairs", said.append)
    held = arrange.held_out(["a red cat", "a red\n cat", "b", "c"], 0.5, 0)
    assert held.items in ({0, 1}, {2, 3})


def test_what_an_evaluation_asks_for_and_a_run_did_not_keep_out(tiny_wan: Path, tmp_path: Path) -> None:
    """One file for both: training leaves out as many prompts as its own evaluation has, and no more."""
    both = words(tmp_path / "both.txt", *"abcdefgh")
    one = recipe(tiny_wan, both, 2, prompts=str(both))
    kept = {item.prompt for item in one.held_out}
    assert (len(kept), left_out.trained_on(one.run, sorted(kept))) == (2, [])
    assert left_out.trained_on(one.run, list("abcdefgh")) == sorted(set("abcdefgh") - kept)
    assert left_out.trained_on(recipe(tiny_wan, both, 8, prompts=str(words(tmp_path / "p.txt", "x"))).run, ["a"]) == []


def test_pairs_and_clips_are_looked_through_too(tiny_wan: Path, tmp_path: Path) -> None:
    heldout = words(tmp_path / "heldout.txt", "prompt 0")
    pairs = make_set(tmp_path / "pairs", model=str(tiny_wan))
    run = recipe(tiny_wan, heldout, method={"name": "dense"}, pairs=str(pairs)).run
    assert left_out.trained_on(run, ["prompt 0", "prompt 1", "another"]) == ["prompt 1"]
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "a.mp4").symlink_to(pairs / store.read(pairs).pairs[0].first_file_name)
    words(clips / "a.txt", "a  cat")
    run = recipe(tiny_wan, heldout, method={"name": "sft"}, videos=str(clips)).run
    assert left_out.trained_on(run, ["prompt 0", "a cat"]) == ["a cat"]
