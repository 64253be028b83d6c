"""`vpo score` on files as they come: each is judged or named, one after the other."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from tests.support.footage import grey
from vpo_kit.cli import score as command
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.library import score
from vpo_kit.rewards.base import Reward, RewardOutput, RewardSpec
from vpo_kit.rewards.vqa import VQA, GoldVQA
from vpo_kit.video import Footage, read_video


@pytest.mark.parametrize("kind", [VQA, GoldVQA])
def test_a_single_frame_is_refused_in_one_line(kind: type[VQA]) -> None:
    name = kind.spec.name
    with pytest.raises(
        DataError, match=f"^reward '{name}' judges motion and needs at least 2 frames, not a single one$"
    ):
        kind()(torch.rand(1, 1, 3, 64, 64), fps=1)
    assert torch.isfinite(kind()(torch.rand(1, 2, 3, 64, 64), fps=1).score).all()


def test_one_bad_clip_does_not_end_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey(tmp_path / "a.gif", 9, fps=10, times=[0, 0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 1.0, 1.1])
    grey(tmp_path / "b.mp4", 1)
    (tmp_path / "c.mp4").write_bytes(b"no video")
    grey(tmp_path / "d.mp4", 9)
    with pytest.raises(DataError, match=r"^2 of 4 clips left out: .*c.mp4 cannot be decoded as a video: "):
        command.score([tmp_path], "vqa")
    words = " ".join(capsys.readouterr().out.split())
    assert "a.gif: variable frame rate: 9 frames are given out as 12 at 10 a second" in words
    one = "b.mp4: reward 'vqa' judges motion and needs at least 2 frames, not a single one"
    assert f"left out: {tmp_path / one}" in words
    scored = words.partition("motion")[2].partition("left out")[0]
    assert [name for name in ("a.gif", "b.mp4", "c.mp4", "d.mp4") if name in scored] == ["a.gif", "d.mp4"]
    command.score([tmp_path / "b.mp4"], "technical")
    assert "a single frame, taken for one second" in capsys.readouterr().out


def test_one_clip_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    for i in range(4):
        grey(tmp_path / f"{i}.mp4", 5)
    alive: list[weakref.ref[torch.Tensor]] = []

    def watched(path: Path) -> Footage:
        assert not any(ref() is not None for ref in alive)
        footage = read_video(path)
        alive.append(weakref.ref(footage.frames))
        return footage

    monkeypatch.setattr(score, "read_video", watched)
    command.score([tmp_path], "technical")
    assert len(alive) == 4


class Wordy(Reward):
    """Counts letters: a clip's score says which prompt it was given."""

    spec = RewardSpec(
        name="wordy",
        licence="none",
        source="this file",
        scale="longer prompts are better",
        differentiable=False,
        per_segment=False,
        needs_prompt=True,
    )

    def forward(self, video, prompts=None, *, fps, segments=None):  # type: ignore[no-untyped-def]
        return RewardOutput(torch.tensor([float(len(prompts[0]))]) + video.shape[1] / 100)


def test_a_name_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey(tmp_path / "Title [dQw4w9WgXcQ].mp4", 3)
    command.score([tmp_path], "tests.cli.test_score:Wordy", "[/b] a cat")
    assert "Title [dQw4w9WgXcQ].mp4" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_scores_go_into_a_file(kind: str, tmp_path: Path) -> None:
    """Each clip by its own caption, each segment by its own frames; a bad clip is a row with its reason."""
    for name, text in (("a", "six by"), ("b", "four")):
        grey(tmp_path / f"{name}.mp4", 9, fps=4)
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "c.mp4").write_bytes(b"no video")
    (tmp_path / "c.txt").write_text("none")
    grey(tmp_path / "d.mp4", 3)
    output = tmp_path / f"out.{kind}"
    with pytest.raises(DataError, match=r"2 of 4 clips left out: .*d\.mp4 has no caption"):
        command.score([tmp_path], "tests.cli.test_score:Wordy", output=output, segments=1.0)
    text = output.read_text()
    rows = (
        list(csv.DictReader(text.splitlines())) if kind == "csv"
        else json.loads(text) if kind == "json" else [json.loads(line) for line in text.splitlines()]
    )  # fmt: skip
    assert [Path(row["file"]).name for row in rows] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert [float(row["wordy"]) for row in rows[:2]] == pytest.approx([6.09, 4.09])
    assert "cannot be decoded" in rows[2]["error"]
    parts = json.loads(rows[0]["segments"]) if kind == "csv" else rows[0]["segments"]
    assert [(part["start"], part["end"], round(part["wordy"], 2)) for part in parts] == [(0, 1, 6.04), (1, 2.25, 6.05)]


def test_a_damaged_listing_is_named_and_a_pair_sets_holds_no_captions(tmp_path: Path) -> None:
    grey(tmp_path / "a.mp4", 3)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.mp4", "text": "six by"}\n{"file_name": "b.mp4", "te')
    with pytest.raises(DataError, match=r"metadata\.jsonl, line 2, is not JSON"):
        command.score([tmp_path], "technical")
    (tmp_path / "metadata.jsonl").write_text('{"first_file_name": "a.mp4", "second_file_name": "a.mp4"}\n')
    assert score.clips_of([tmp_path], None) == {tmp_path / "a.mp4": None}
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text("name,text\na.mp4,six\n")
    with pytest.raises(DataError, match="must name the columns file_name and text, not name, text"):
        command.score([tmp_path], "technical")


def test_errors_come_before_the_work(tmp_path: Path) -> None:
    grey(tmp_path / "a.mp4", 3)
    with pytest.raises(ConfigError, match="give --prompt, or captions in the folder"):
        command.score([tmp_path], "tests.cli.test_score:Wordy")
    with pytest.raises(ConfigError, match=r"give the name of a \.csv, \.jsonl, \.json file"):
        command.score([tmp_path], "technical", output=tmp_path / "x.txt")
