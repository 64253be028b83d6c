"""`vpo clips`: a videofolder of either embedded model's world, with what was done to each clip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import fails, main_ok
from vpo_kit.duets import world as duets
from vpo_kit.sprites import world as sprites


@pytest.mark.parametrize(("model", "parse"), [("sprites", sprites.parse), ("duets", duets.parse)])
def test_clips_are_of_the_model_s_world(model: str, parse: Callable[[str], Any], tmp_path: Path) -> None:
    main_ok(["clips", "--output", tmp_path / "out", "--model", model, "--count", 6, "--seed", 1])
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == sorted(path.name for path in (tmp_path / "out").glob("*.mp4"))
    assert all(parse(row["text"]).split != "heldout" for row in rows)
    assert any(row["flaws"] for row in rows)
    assert not all(row["flaws"] for row in rows)


def test_a_world_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = fails(capsys, "clips", "--output", tmp_path / "out", "--model", "trios")
    assert code == 2
    assert "'trios'" in shown
    assert not (tmp_path / "out").exists()
