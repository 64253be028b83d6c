"""The videos of a board: the base once, and of a row with several seeds one run after the other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from vpo_kit.errors import DataError
from vpo_kit.evaluation.samples import Results
from vpo_kit.study.subjects import is_board, read

FOUND = Results(
    name="row", prompts=["a", "b"], groups=[0, 0, 1, 1], files=["000-0.mp4", "000-1.mp4", "001-0.mp4", "001-1.mp4"],
    metrics={"motion": [0.0] * 4},
)  # fmt: skip


def put(folder: Path, found: Results = FOUND) -> None:
    folder.mkdir(parents=True)
    for name in found.files:
        (folder / name).write_bytes(b"video")
    found.save(folder)


def a_board(folder: Path, rows: dict[str, Sequence[int]]) -> Path:
    for name, seeds in rows.items():
        for seed in seeds:
            for step in ("step-000000", "step-999990", "step-1000000"):
                put(folder / f"runs/{name.replace(' ', '-')}-{seed}/samples/{step}")
    named = [{"name": name, "runs": [{"seed": seed} for seed in seeds]} for name, seeds in rows.items()]
    # what the base gives by itself has no run of its own
    named.append({"name": "best of 4 by vqa", "runs": [{"seed": 0}]})
    (folder / "results.json").write_text(json.dumps({"rows": named}))
    return folder


def test_a_row_shows_its_runs_in_turn(tmp_path: Path) -> None:
    folder = a_board(tmp_path / "board", {"dense": (0, 1), "online x=2": (0, 1)})
    assert is_board(folder)
    found = read(folder)
    assert found.names == ["base", "dense", "online x=2"]
    assert found.prompts == ["a", "a", "b", "b"]
    runs = [path.relative_to(folder).parts[1] for path in found.videos["online x=2"]]
    assert runs == ["online-x=2-0", "online-x=2-1"] * 2
    assert [path.parent.name for path in found.videos["dense"]] == ["step-1000000"] * 4
    assert {path.parent.name for path in found.videos["base"]} == {"step-000000"}
    assert read(folder, ["dense"]).names == ["base", "dense"]


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    folder = a_board(tmp_path / "board", {"dense": (0,)})
    other = folder / "runs/dense-0/samples/step-1000000"
    (other / "001-1.mp4").unlink()
    with pytest.raises(DataError, match=r"001-1\.mp4 is missing"):
        read(folder)
    replace(FOUND, prompts=["a", "c"]).save(other)
    with pytest.raises(DataError, match="other prompts"):
        read(folder)
    (folder / "results.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be read"):
        read(folder)
