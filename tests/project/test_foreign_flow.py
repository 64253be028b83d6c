"""From a foreign table to a trained LoRA and back: every layout through every command that takes an imported set."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.support import foreign
from tests.support.foreign_sets import SHARED, import_set, run, train
from vpo_kit.judged import against_people
from vpo_kit.judged.reader import read
from vpo_kit.pairing import store

LAYOUTS = foreign.PAIRS | foreign.ONE_SIDED | foreign.RATED
QUICK = ("videogen-rewardbench", "t2vqa-db")
"""One of verdicts and one of ratings; the others take the same way, and minutes."""


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against_people, "RESAMPLES", 20)


def bench(source: Path, output: Path, *rewards: str) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """By dimension, judge and measure."""
    named = [part for name in rewards for part in ("--reward", name)]
    assert run("reward", "bench", source, *named, "--output", output) == 0
    (found,) = json.loads(output.read_text())["sets"]
    assert not found["left_out"]
    dimensions: dict[str, dict[str, dict[str, dict[str, float]]]] = found["dimensions"]
    return dimensions


def exported(pairs: Path, folder: Path) -> None:
    """As csv and as a folder for the Hub: both read again with the same prompts, verdicts and contents."""
    before = store.read(pairs).pairs
    dimensions = list(before[0].judged or ())
    verdicts = "verdict," + ",".join(f"judged: {name}" for name in dimensions)
    assert run("pair", "export", pairs, "--format", "csv", "--output", pairs / "pairs.csv") == 0
    assert run("pair", "export", pairs, "--format", "hub", "--output", folder) == 0
    for table in (pairs / "pairs.csv", folder):
        again = folder.parent / f"again-{table.name}"
        options = ["--format", "folder", "--column", f"verdict={verdicts}"]
        assert run("pair", "import", table, *options, "--output", again) == 0
        for old, new in zip(before, store.read(again).pairs, strict=True):
            assert (old.prompt, old.sha256, old.models) == (new.prompt, new.sha256, new.models)
            assert list((old.judged or {}).values()) == [(new.judged or {})[f"judged: {name}"] for name in dimensions]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in LAYOUTS]
)
def test_every_layout_goes_the_whole_way(name: str, tmp_path: Path, tiny_wan: Path) -> None:
    """Import, inspect, bench, two steps of `dpo`, export."""
    make, dimension = LAYOUTS[name]
    source, pairs = make(tmp_path / "in"), tmp_path / "set"
    assert import_set(source, name, tmp_path / "rated" if name in foreign.RATED else pairs) == 0
    if name in foreign.RATED:
        assert run("pair", "import", tmp_path / "rated", "--least-difference", 0.25, "--output", pairs) == 0
    assert run("pair", "inspect", pairs) == 0
    # louder clips come later, and of two the first one is better
    found = bench(pairs, tmp_path / "bench.json", "tests.support.loud:Loud")[dimension]
    assert found["loud"]["accuracy"]["value"] == 0
    assert found["minus motion"]["accuracy"]["value"] == 1
    assert train(pairs, tiny_wan, tmp_path / "run", f"data.dimension={dimension}") == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # policy and reference are the same
    assert rows[0]["grad_norm"] > 0
    exported(pairs, tmp_path / "hub")


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "videoalign").is_dir(), reason="no shared data")
def test_the_labelled_pairs_of_videoalign_go_the_whole_way(tmp_path: Path) -> None:
    """On the embedded model, in the two dimensions in which a pair of them is decided for each side."""
    pairs = tmp_path / "set"
    assert run("pair", "import", SHARED / "videoalign", "--output", pairs) == 0
    assert run("pair", "inspect", pairs) == 0
    found = bench(pairs, tmp_path / "bench.json", "tests.support.loud:Loud")
    assert {name: rows["loud"]["accuracy"]["count"] for name, rows in found.items()} == {"VQ": 2, "MQ": 1, "TA": 2}
    for dimension in ("VQ", "TA"):
        plain = ["method.num_draws=1", "selection.strengths=[]", "data.labeller=people"]
        assert train(pairs, Path("sprites"), tmp_path / dimension, f"data.dimension={dimension}", *plain) == 0
        rows = [json.loads(line) for line in (tmp_path / dimension / "metrics.jsonl").read_text().splitlines()]
        assert [row["labels"] for row in rows] == [2, 2]
        assert all(row["grad_norm"] > 0 for row in rows)
    exported(pairs, tmp_path / "hub")


@pytest.mark.parametrize("method", ["kto", "rwr", "sft"])
def test_unpaired_methods_take_a_rated_set_as_it_is(method: str, tmp_path: Path, tiny_wan: Path) -> None:
    """And so does the bench. Scores 72.5, 40, 50, 50 of two prompts: above and below the mean of 53.1."""
    assert import_set(foreign.RATED["t2vqa-db"][0](tmp_path / "in"), "t2vqa-db", tmp_path / "rated") == 0
    assert bench(tmp_path / "rated", tmp_path / "bench.json", "tests.support.loud:Loud")["mos"]["loud"]["spearman"]
    assert unpaired(method, tmp_path / "rated", tiny_wan, tmp_path / "run") == 0
    first, _ = (json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert first["grad_norm"] > 0
    if method == "kto":
        assert (first["labels"], first["good_share"]) == (4, 0.25)
    if method == "rwr":
        # exp of 1, -1, 0 and 0, over their mean, squared: within a prompt of two, a deviation is half the difference
        weights = [2.718282, 0.367879, 1.0, 1.0]
        mean = sum(weights) / 4
        assert first["weight_square"] == pytest.approx(sum((w / mean) ** 2 for w in weights) / 4, rel=1e-4)
        assert "reward_mean" not in first


def unpaired(method: str, videos: Path, model: Path, output: Path, *more: str) -> int:
    small = ["batch_size=4", "evaluation.num_prompts=0", "validation.share=0", *more]
    options = [part for text in small for part in ("--set", text)]
    return run("train", "--method", method, "--model", model, "--videos", videos, "--output", output, "--steps", 2,
               *options)  # fmt: skip


def test_a_rated_set_of_several_dimensions_asks_which(
    tmp_path: Path, tiny_wan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_set(foreign.RATED["fetv"][0](tmp_path / "in"), "fetv", tmp_path / "rated")
    assert unpaired("kto", tmp_path / "rated", tiny_wan, tmp_path / "a") == 1
    assert "is rated in static_quality, temporal_quality, and not overall: give data.dimension" in said(capsys)
    assert unpaired("rwr", tmp_path / "rated", tiny_wan, tmp_path / "b", "data.dimension=motion") == 1
    assert "there is no 'motion'" in said(capsys)
    assert unpaired("kto", tmp_path / "rated", tiny_wan, tmp_path / "c", "data.dimension=static_quality") == 0


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_a_snapshot_of_the_hub_is_read(tmp_path: Path, tiny_wan: Path) -> None:
    """Its files are links into the cache's blobs, whose names have no suffix; a link anywhere else is refused."""
    cache = tmp_path / "hub" / "datasets--a--b"
    whole, snapshot = foreign.PAIRS["genai-bench"][0](cache / "plain").parent, cache / "snapshots" / "0f1e"
    (cache / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    for i, file in enumerate(sorted(whole.iterdir())):
        blob = file.rename(cache / "blobs" / f"{i:064x}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    (tmp_path / "private.mp4").write_bytes((cache / "blobs" / f"{0:064x}").read_bytes())
    found = read(snapshot)
    assert [clip.path.name for clip in found.clips] == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    assert import_set(snapshot, "genai-bench", tmp_path / "set") == 0
    for pair in store.read(tmp_path / "set").pairs:
        for member in pair.videos:
            video = tmp_path / "set" / member.file_name
            assert (video.suffix, video.is_symlink(), video.is_file()) == (".mp4", False, True)
    (snapshot / "0.mp4").unlink()
    (snapshot / "0.mp4").symlink_to(tmp_path / "private.mp4")
    assert read(snapshot).left_out == ["row 1: 0.mp4 lies outside the set's folder"]


def test_rated_clips_of_a_snapshot_are_trained_on(tmp_path: Path, tiny_wan: Path) -> None:
    cache = tmp_path / "datasets--a--b"
    (cache / "blobs").mkdir(parents=True)
    import_set(foreign.RATED["t2vqa-db"][0](tmp_path / "in"), "t2vqa-db", tmp_path / "rated")
    for file in [path for path in (tmp_path / "rated").rglob("*") if path.is_file()]:
        link = cache / "snapshots" / "0f1e" / file.relative_to(tmp_path / "rated")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.rename(cache / "blobs" / file.name))
    assert unpaired("kto", cache / "snapshots" / "0f1e", tiny_wan, tmp_path / "run") == 0


def test_one_video_under_two_prompts_has_two_ratings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And a clip that is rated in two rows is named, not counted twice."""
    foreign.clips(tmp_path / "in")
    rows = [("0.mp4", "a", 1), ("0.mp4", "b", 2), ("1.mp4", "a", 3), ("0.mp4", "a", 5)]
    with (tmp_path / "in" / "set.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "prompt", "mos"), *rows])
    assert import_set(tmp_path / "in" / "set.csv", "mos", tmp_path / "rated") == 0
    assert "row 4: the same clip as row 1" in capsys.readouterr().out
    from vpo_kit.clips import ratings

    kept = [json.loads(line) for line in (tmp_path / "rated" / "metadata.jsonl").read_text().splitlines()]
    assert len({row["file_name"] for row in kept}) == 3
    assert sorted(ratings(tmp_path / "rated").values()) == [1, 2, 3]
    assert all((tmp_path / "rated" / row["file_name"]).is_file() for row in kept)
    assert [(clip.prompt, clip.scores["mos"]) for clip in read(tmp_path / "rated").clips] == [
        (prompt, score) for _, prompt, score in rows[:3]
    ]
