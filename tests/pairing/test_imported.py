"""Imported sets: every layout to a set, what is damaged named, each member judged whole, two steps of training."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import foreign
from tests.support.bright_pairs import edit
from tests.support.footage import ffmpeg
from tests.support.foreign_sets import SHARED, import_set, run, train
from vpo_kit.errors import ConfigError, DataError, OutputError
from vpo_kit.judged.layouts import Reading
from vpo_kit.judged.reader import read
from vpo_kit.net.push import push
from vpo_kit.pairing import check, export, imported, store
from vpo_kit.pairing.records import Pair
from vpo_kit.video import read_video
from vpo_kit.video.scan import Extent

VERDICTS = foreign.PAIRS | foreign.ONE_SIDED


@pytest.mark.parametrize("name", VERDICTS)
def test_every_layout_of_verdicts_becomes_a_pair_set(name: str, tmp_path: Path) -> None:
    make, dimension = VERDICTS[name]
    assert import_set(make(tmp_path / "in"), name, tmp_path / "set") == 0
    found = store.read(tmp_path / "set")
    first, second = found.pairs
    tie = 1 if name in foreign.ONE_SIDED else 0
    assert [(pair.judged or {})[dimension] for pair in found.pairs] == [1, tie]
    assert (first.prompt, first.row, second.row) == (foreign.PROMPTS[0], 1, 2)
    assert second.prompt == ("" if name == "uve" else foreign.PROMPTS[1])
    # each member as it is: 12 frames at 8 a second against 20 at 16
    assert [(m.frames, m.fps, m.segments) for m in first.videos] == [(12, 8, [(0, 12)]), (20, 16, [(0, 20)])]
    assert read_video(tmp_path / "set" / first.second_file_name).size == (48, 48)
    assert (first.latents, first.seeds, found.broken) == (None, None, [])
    if name in ("videogen-rewardbench", "genai-bench"):
        assert first.models == ("x", "y")
    assert not check.pairs(found, decode=True).wrong
    assert not check.strays(found)
    # our own sets are a layout too
    again = read(tmp_path / "set")
    assert [pair.verdicts[dimension] for pair in again.pairs] == [1, tie]


def test_every_verdict_survives(tmp_path: Path) -> None:
    import_set(foreign.PAIRS["mj-bench-video"][0](tmp_path / "mj"), "mj-bench-video", tmp_path / "a")
    pair = store.read(tmp_path / "a").pairs[0]
    assert pair.judged == {"overall_preference": 1, "alignment": -1, "safety": 0}
    assert (pair.label, pair.labels, pair.labeller) == (1, [1], "people")
    import_set(foreign.PAIRS["rapidata"][0](tmp_path / "rd"), "rapidata", tmp_path / "b")
    first, second = store.read(tmp_path / "b").pairs
    assert first.judged == {"Preference": 1, "Coherence": -1}
    assert first.shares == {"Preference": 0.8, "Coherence": 0.4}
    assert first.label is None  # of two dimensions, none is overall
    assert imported.weight(first, "Preference") == pytest.approx(0.6)
    assert imported.weight(second, "Preference") == 0


def test_training_asks_for_a_dimension(tmp_path: Path) -> None:
    import_set(foreign.PAIRS["rapidata"][0](tmp_path / "rd"), "rapidata", tmp_path / "set")
    found = store.read(tmp_path / "set")
    with pytest.raises(DataError, match=r"judged in Preference, Coherence, and not overall: give data\.dimension"):
        imported.relabelled(found, None)
    with pytest.raises(ConfigError, match="no dimension 'VQ' \\(it has Preference, Coherence\\)"):
        imported.relabelled(found, "VQ")
    assert [pair.label for pair in imported.relabelled(found, "Preference").pairs] == [1, 0]
    assert [pair.labels for pair in imported.relabelled(found, "Coherence").pairs] == [[-1], [-1]]
    assert {pair.labeller for pair in imported.relabelled(found, "Coherence").pairs} == {"people"}


@pytest.mark.parametrize("name", foreign.RATED | foreign.UNPROMPTED)
def test_ratings_are_kept_and_become_pairs_on_demand(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, dimension = (foreign.RATED | foreign.UNPROMPTED)[name]
    assert import_set(make(tmp_path / "in"), name, tmp_path / "rated") == 0
    assert "4 rated clips, 0 rows left out" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "rated" / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    assert all(dimension in row["scores"] and (tmp_path / "rated" / row["file_name"]).is_file() for row in rows)
    assert [row["row"] for row in rows] == [1, 2, 3, 4]
    shown = [round(score, 2) for score in (row["scores"][dimension] for row in rows)]
    assert shown == [round(clip.scores[dimension], 2) for clip in read(tmp_path / "rated").clips]
    pairs = tmp_path / "pairs"
    code = run("pair", "import", tmp_path / "rated", "--least-difference", 0, "--output", pairs)
    if name in foreign.UNPROMPTED:
        assert code == 1
        assert "no two clips share a prompt" in capsys.readouterr().err
        return
    assert [(pair.judged or {})[dimension] for pair in store.read(pairs).pairs] == [1, 0]
    run("pair", "import", tmp_path / "rated", "--least-difference", 99, "--output", tmp_path / "ties")
    assert [(pair.judged or {})[dimension] for pair in store.read(tmp_path / "ties").pairs] == [0, 0]
    with pytest.raises(DataError, match=r"holds ratings: vpo pair import .* --least-difference"):
        store.read(tmp_path / "rated")


def test_what_is_damaged_is_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = foreign.PAIRS["pairs"][0](tmp_path / "in")
    (tmp_path / "in" / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "outside.mp4").write_bytes(b"")
    rows = ["0.mp4,gone.mp4,first", "0.mp4,bad.mp4,first", "../outside.mp4,1.mp4,first", "0.mp4,3.mp4,",
            "0.mp4,3.mp4,perhaps", "0.mp4,1.mp4,first", "/etc/hostname,1.mp4,first", ",1.mp4,first"]  # fmt: skip
    reasons = ["gone.mp4 is missing", "bad.mp4 cannot be", "lies outside", "no verdict", "which is none of",
               "the same as row 1", "lies outside", "no file is named"]  # fmt: skip
    with source.open("a") as file:
        file.writelines(f"{foreign.PROMPTS[0]},{row}\n" for row in rows)
    assert import_set(source, "pairs", tmp_path / "set") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 pairs of 4 clips, 8 rows left out" in shown
    assert "2 lie outside" in shown
    skipped = store.read(tmp_path / "set").facts["skipped"]
    assert len(skipped) == 8
    for number, reason in enumerate(reasons, 3):
        assert any(line.startswith(f"row {number}: ") and reason in line for line in skipped), reason
    (tmp_path / "in" / "odd.csv").write_text("a,b\n1,2\n")
    assert run("pair", "import", tmp_path / "in" / "odd.csv", "--output", tmp_path / "x") == 1
    assert "no known layout has these columns: a, b" in capsys.readouterr().err
    assert run("pair", "import", source, "--output", tmp_path / "set") == 1
    assert "exists: give another --output" in capsys.readouterr().err
    for options, message in (
        (["--format", "nobody"], "unknown layout 'nobody'"),
        (["--column", "prompt"], "write it as NAME=VALUE"),
        (["--column", "colour=red"], "--column colour: the names are"),
        (["--word", "draw=x"], "--word draw"),
        (["--least-difference", "1"], "holds verdicts on pairs, and no ratings"),
        (["--set", "sampling.frames=5"], "it goes with --model"),
    ):
        assert run("pair", "import", source, "--output", tmp_path / "y", *options) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "y").exists()


def test_tables_as_other_systems_write_them(tmp_path: Path) -> None:
    """A byte order mark, Windows line ends, names beyond ASCII, and separators of Unicode and line ends in a prompt."""
    foreign.clips(tmp_path / "in", ("été 0.mp4", "視頻/1.mp4", "2.mp4", "3.mp4"))
    prompts = ["a\u2028circle\x85\nthat moves", "🎈 à côté"]
    with (tmp_path / "in" / "set.csv").open("w", newline="", encoding="utf-8-sig") as file:
        rows = [(prompts[0], "été 0.mp4", "視頻/1.mp4", "first"), (prompts[1], "2.mp4", "3.mp4", "TIE")]
        csv.writer(file, lineterminator="\r\n").writerows([("prompt", "first", "second", "verdict"), *rows])
    assert import_set(tmp_path / "in" / "set.csv", "pairs", tmp_path / "set") == 0
    found = store.read(tmp_path / "set")
    assert not found.broken
    assert [(pair.prompt, pair.label) for pair in found.pairs] == [(prompts[0], 1), (prompts[1], 0)]
    assert not check.strays(found)


def test_members_of_other_kinds(tmp_path: Path) -> None:
    """gif, webm, avi and mkv, of other rates than what they are set against."""
    foreign.clips(tmp_path / "in")
    kinds = (".gif", ".webm", ".avi", ".mkv")
    for i, kind in enumerate(kinds):
        ffmpeg("-i", tmp_path / "in" / "1.mp4", tmp_path / "in" / f"other-{i}{kind}")
    with (tmp_path / "in" / "set.csv").open("w", newline="") as file:
        rows = [(f"p{i}", "0.mp4", f"other-{i}{kind}", "second") for i, kind in enumerate(kinds)]
        csv.writer(file).writerows([("prompt", "first", "second", "verdict"), *rows])
    assert import_set(tmp_path / "in" / "set.csv", "pairs", tmp_path / "set") == 0
    found = store.read(tmp_path / "set")
    assert [Path(pair.second_file_name).suffix for pair in found.pairs] == list(kinds)
    for pair in found.pairs:
        member = pair.videos[1]
        assert member.seconds == pytest.approx(20 / 16, rel=0.06)
        assert len(read_video(tmp_path / "set" / member.file_name).frames) == member.frames
    assert not check.pairs(found, decode=True).wrong


def test_parquet_without_its_extra_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = foreign.PAIRS["genai-bench"][0](tmp_path / "in")
    import_set(source, "genai-bench", tmp_path / "set")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"^\S+set\.parquet: parquet needs pyarrow: pip install 'vpo-kit\[parquet\]'$"):
        read(source)
    with pytest.raises(DataError, match=r"pip install 'vpo-kit\[parquet\]'$"):
        export.hub(store.read(tmp_path / "set"), tmp_path / "hub")


def test_each_member_is_judged_whole(tmp_path: Path) -> None:
    """A reward's scores of the set are those of the files themselves."""
    from vpo_kit.rewards.technical import Technical

    import_set(foreign.PAIRS["pairs"][0](tmp_path / "in"), "pairs", tmp_path / "set")
    assert run("label", tmp_path / "set", "--with", "reward:technical") == 0
    judge = Technical()
    for pair in store.read(tmp_path / "set").pairs:
        assert pair.scores is not None
        for member, score in zip(pair.videos, (pair.scores.first_clip, pair.scores.second_clip), strict=True):
            footage = read_video(tmp_path / "set" / member.file_name)
            assert len(footage.frames) == member.frames
            with torch.no_grad():
                assert float(judge(footage.frames[None], fps=footage.fps).score) == pytest.approx(score, abs=1e-5)
        assert pair.judged is not None  # people's verdicts stay
    assert run("label", tmp_path / "set", "--judge-against", tmp_path / "set") == 0
    assert run("pair", "inspect", tmp_path / "set") == 0
    assert run("pair", "check", tmp_path / "set", "--decode") == 0


def test_two_steps_of_dpo(tmp_path: Path, tiny_wan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Latents are made when training needs them, once; members of other lengths are cut to the same frames."""
    import_set(foreign.ONE_SIDED["videodpo"][0](tmp_path / "in"), "videodpo", tmp_path / "set")
    assert not (tmp_path / "set" / ".latents").exists()
    assert train(tmp_path / "set", tiny_wan, tmp_path / "run") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "members of 2 of 2 pairs differ in length or rate: both are cut to the same 9 frames at 8 a second" in shown
    latents = {path: path.stat().st_mtime_ns for path in (tmp_path / "set" / ".latents").rglob("*.safetensors")}
    assert len(latents) == 4
    again = ("pair", "import", tmp_path / "in" / "pair.json", "--output", tmp_path / "set", "--model", tiny_wan)
    assert run(*again, "--separator", ";", "--format", "videodpo") == 2
    assert "was imported with another --separator: give the same, or another --output" in capsys.readouterr().err
    assert run(*again) == 0
    assert run(*again, "--format", "videodpo") == 0
    assert latents == {path: path.stat().st_mtime_ns for path in (tmp_path / "set" / ".latents").rglob("*.safetensors")}
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    some = next(iter(latents))
    some.write_bytes(some.read_bytes()[:-8])
    assert train(tmp_path / "set", tiny_wan, tmp_path / "again") == 0
    assert "is damaged: it is made anew" in capsys.readouterr().out
    assert (tmp_path / "again" / "metrics.jsonl").read_text() == before
    assert train(tmp_path / "set", tiny_wan, tmp_path / "no", "data.dimension=VQ") == 2
    assert "no dimension 'VQ' (it has verdict)" in capsys.readouterr().err
    found = store.read(tmp_path / "set")
    (tmp_path / "set" / found.pairs[0].first_file_name).unlink()
    assert train(tmp_path / "set", tiny_wan, tmp_path / "half") == 0
    assert "left out: 000000:" in capsys.readouterr().out


def test_votes_weigh(tmp_path: Path, tiny_wan: Path) -> None:
    """Votes of 8 to 2 weigh .6: two draws of one pair have the same loss as without, as weights are means."""
    from vpo_kit.training.paired import Pairs

    import_set(foreign.PAIRS["rapidata"][0](tmp_path / "in"), "rapidata", tmp_path / "set")
    found = imported.relabelled(store.read(tmp_path / "set"), "Preference")
    weights = [imported.weight(pair, "Preference") for pair in found.pairs]
    zeros = {name: torch.zeros(1, 3, 1, 1) for name in ("first", "second")}
    pairs = Pairs(found.path, found.pairs, [(0, 1), (1, 5), (5, 9)], lambda pair: zeros, weights)
    batch = pairs.tensors([0, 1])
    assert batch["weight"].tolist() == pytest.approx([0.6, 0.0])
    assert batch["labels"].tolist() == [[1, 1, 1], [0, 0, 0]]  # a verdict on the whole holds for every frame
    assert (
        train(tmp_path / "set", tiny_wan, tmp_path / "run", "data.dimension=Coherence", "data.vote_weights=true") == 0
    )


def test_one_video_under_several_prompts_has_several_names() -> None:
    extent = Extent(frames=8, duration=1.0, fps=8.0, even=True, origin=0.0, width=16, height=16)
    one, other = (imported._Seen(extent, name, f"videos/{name}.mp4") for name in ("aa", "bb"))
    found = imported._apart({0: one, 2: other, 3: one, 7: one})
    assert [found[i].file_name for i in (0, 2, 3, 7)] == [
        "videos/aa.mp4", "videos/bb.mp4", "videos/aa-1.mp4", "videos/aa-2.mp4"
    ]  # fmt: skip
    assert [found[i].sha256 for i in (0, 2, 3, 7)] == ["aa", "bb", "aa", "aa"]


def test_the_way_back(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A table, and a folder for the Hub, which is pushed only when that is asked for."""
    import_set(foreign.PAIRS["videogen-rewardbench"][0](tmp_path / "in"), "videogen-rewardbench", tmp_path / "set")
    table, folder = tmp_path / "set" / "pairs.csv", tmp_path / "hub"
    assert run("pair", "export", tmp_path / "set", "--format", "csv", "--output", table) == 0
    pushed: list[dict[str, Any]] = []
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda self, name, **facts: pushed.append(facts) or name)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda self, **facts: pushed.append(facts))
    assert run("pair", "export", tmp_path / "set", "--format", "hub", "--output", folder) == 0
    assert not pushed
    assert {path.name for path in folder.iterdir()} == {"README.md", "pairs.parquet", "videos"}
    card, labels = (folder / "README.md").read_text(), [pair.label for pair in store.read(tmp_path / "set").pairs]
    assert card.startswith("---\npretty_name: hub\n")
    assert f"2 pairs of videos with verdicts (first {labels.count(1)}, second {labels.count(-1)}, tie " in card
    assert len(read(folder).pairs) == 2
    assert run("pair", "export", tmp_path / "set", "--format", "csv", "--push-to-hub", "a/b", "--output", table) == 2
    capsys.readouterr()
    more = ["--push-to-hub", "a/b", "--output", tmp_path / "other"]
    assert run("pair", "export", tmp_path / "set", "--format", "hub", *more) == 0
    assert "pushed: a/b" in capsys.readouterr().out
    assert [(facts["repo_type"], facts.get("private")) for facts in pushed] == [("dataset", True), ("dataset", None)]

    class NoNetworkError(Exception):
        """As those of the Hub's HTTP library: no OSError."""

    def fails(*_: Any, **__: Any) -> None:
        raise NoNetworkError("no address for huggingface.co")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", fails)
    with pytest.raises(OutputError, match=r"cannot push to a/b: no address for .*; the folder .* is whole"):
        push(folder, "a/b", "dataset")
    monkeypatch.undo()
    with pytest.raises(OutputError, match=r"cannot push to a b: .*; the folder .* is whole"):
        push(folder, "a b", "dataset")


@pytest.mark.parametrize(("name", "kind"), [("rapidata", "csv"), ("videogen-rewardbench", "hub")])
def test_no_judgement_is_lost_on_the_way_back(name: str, kind: str, tmp_path: Path) -> None:
    """Every dimension, its votes, and the label that follows from them; the prompt to its last sign."""
    import_set(foreign.PAIRS[name][0](tmp_path / "in"), name, tmp_path / "set")
    edit(tmp_path / "set", 0, lambda row: row.update(prompt='a\rcat, "so"\nit is\r\nsaid'))
    output = tmp_path / "set" / "pairs.csv" if kind == "csv" else tmp_path / "hub"
    assert run("pair", "export", tmp_path / "set", "--format", kind, "--output", output) == 0
    assert run("pair", "import", output, "--output", tmp_path / "again") == 0
    before, after = (store.read(tmp_path / name).pairs for name in ("set", "again"))
    assert [_said(pair) for pair in before] == [_said(pair) for pair in after]


def _said(pair: Pair) -> tuple[object, ...]:
    """What people said of a pair, and of which."""
    return pair.prompt, pair.sha256, pair.models, pair.judged, pair.shares, pair.label, pair.labeller


def test_votes_are_kept_though_the_first_pair_has_none(tmp_path: Path) -> None:
    import_set(foreign.PAIRS["rapidata"][0](tmp_path / "in"), "rapidata", tmp_path / "set")
    edit(tmp_path / "set", 0, lambda row: row.update(shares=None))
    assert run("pair", "import", tmp_path / "set", "--output", tmp_path / "again") == 0
    first, second = store.read(tmp_path / "again").pairs
    assert first.shares == {"Preference": None, "Coherence": None}
    assert second.shares == {"Preference": 0.5, "Coherence": 0.4}


@pytest.mark.skipif(not (SHARED / "videoalign").is_dir(), reason="no shared data")
def test_the_labelled_pairs_of_videoalign(tmp_path: Path) -> None:
    assert run("pair", "import", SHARED / "videoalign", "--output", tmp_path / "set") == 0
    found = store.read(tmp_path / "set")
    assert [pair.judged for pair in found.pairs] == [
        {"VQ": -1, "MQ": -1, "TA": 1}, {"VQ": 0, "MQ": 0, "TA": 1}, {"VQ": 1, "MQ": 0, "TA": 0},
    ]  # fmt: skip
    assert all(pair.second_frames for pair in found.pairs)
    assert run("pair", "inspect", tmp_path / "set") == 0
    shutil.rmtree(tmp_path / "set")


def test_a_reading_says_what_it_cannot_be() -> None:
    with pytest.raises(ConfigError, match="--separator '::': give a single sign"):
        Reading(separator="::")
    with pytest.raises(ConfigError, match="--column names the columns of --format folder"):
        Reading("uve", {"prompt": "x"})
    unknown: Any = Reading("KONVID".lower())
    assert list(unknown.candidates) == ["mos"]
