"""Foreign sets: every layout, every kind of damage, agreement by hand, and the bench from a table to its files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import foreign
from tests.support.kept_videos import write_once
from tests.support.loud import Loud
from vpo_kit.cli import main
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.judged import against_people, reader, scores
from vpo_kit.judged.against_people import accuracy, accuracy_with_ties, reciprocal_rank, spearman
from vpo_kit.judged.disagreement import DisagreementSection, page, strongest
from vpo_kit.judged.layouts import Reading
from vpo_kit.judged.sets import JudgedClip, JudgedPair, JudgedSet, pairs_of_ratings
from vpo_kit.library.judge_bench import JudgeBench

LAYOUTS: dict[str, list[dict[str, str]]] = {
    "videogen-rewardbench": [
        {"path_A": "0.mp4", "path_B": "./1.mp4", "A_model": "x", "B_model": "y", "prompt": "p", "VQ": "A", "MQ": "same",
         "TA": "B", "Overall": ""},
    ],
    "visionreward": [{"video1_path": "0.mp4", "video2_path": "1.mp4", "prompt": "p", "standard_answer": "video1"}],
    "mj-bench-video": [
        {"caption": "p", "video_0_path": "0.mp4", "video_1_path": "1.mp4", "overall_preference": "Video 1 better",
         "discard": "false"},
    ],
    "pairs": [{"prompt": "p", "first": "0.mp4", "second": "1.mp4", "verdict": "First"}],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four clips that get louder: the first is grey, the last the noisiest."""
    generator = torch.Generator().manual_seed(0)
    for i in range(4):
        noise = torch.rand(5, 3, 32, 32, generator=generator)
        write_once(tmp_path / f"{i}.mp4", 0.5 + 0.15 * i * (noise - 0.5), 8)
    return tmp_path


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_known_by_its_columns(folder: Path, name: str, suffix: str) -> None:
    found = reader.read(table(folder / f"metadata{suffix}", LAYOUTS[name]))
    (pair,) = found.pairs
    assert [found.clips[i].path.name for i in (pair.first, pair.second)] == ["0.mp4", "1.mp4"]
    assert found.clips[0].prompt == "p"
    assert next(iter(pair.verdicts.values())) == 1
    assert not found.left_out
    if name == "videogen-rewardbench":
        assert pair.verdicts == {"VQ": 1, "MQ": 0, "TA": -1}
        assert [clip.model for clip in found.clips] == ["x", "y"]


def test_ratings_become_pairs_of_one_prompt(folder: Path) -> None:
    rows = [
        {"file_name": f"{i}.mp4", "prompt": "ab"[i // 2], "model": "xy"[i % 2], "static": str(5 - i), "motion": "3"}
        for i in range(4)
    ]
    found = reader.read(table(folder / "ratings.csv", rows))
    assert found.rated
    assert found.dimensions == ["static", "motion"]
    assert [(p.first, p.second, dict(p.verdicts)) for p in found.pairs] == [
        (0, 1, {"static": 1, "motion": 0}), (2, 3, {"static": 1, "motion": 0}),
    ]  # fmt: skip
    assert [p.verdicts["static"] for p in pairs_of_ratings(found.clips, least=1.0)] == [0, 0]


@pytest.mark.parametrize(
    ("one", "other", "least", "verdict"),
    [
        (3.4, 3.3, 0.1, 0), (4.9, 5.0, 0.1, 0), (0.3, 0.1 + 0.2, 0.0, 0), (1000.3, 1000.1, 0.2, 0),
        (3.41, 3.3, 0.1, 1), (3.3, 3.401, 0.1, -1), (1e-3, 0.0, 0.0, 1), (0.0, 0.0, 0.0, 0),
    ],
)  # fmt: skip
def test_a_difference_of_the_least_is_a_tie(one: float, other: float, least: float, verdict: int) -> None:
    """Also where the fractions of a processor make it a little more: ratings are decimals."""
    clips = [JudgedClip(path=Path(f"{i}.mp4"), prompt="p", scores={"q": value}) for i, value in enumerate((one, other))]
    assert [pair.verdicts["q"] for pair in pairs_of_ratings(clips, least)] == [verdict]


@pytest.mark.parametrize("nothing", ["n/a", "NaN", "NA", "None", "null", "-", "", "0.7?"])
@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_cell_that_is_no_number_does_not_cost_its_dimension(folder: Path, nothing: str, suffix: str) -> None:
    """A sign for nothing is no score, anything else costs its own row, which is named."""
    overall = ["4", nothing, "2", "1"]
    rows = [
        {
            "file_name": f"{i}.mp4",
            "prompt": "p",
            "overall": overall[i],
            "sharpness": str(i + 1),
            "note": "3rd" if i else "2",
        }
        for i in range(4)
    ]
    found = reader.read(table(folder / f"ratings{suffix}", rows))
    assert set(found.dimensions) == {"overall", "sharpness"}
    assert [clip.scores["overall"] for clip in found.clips if "overall" in clip.scores] == [4, 2, 1]
    odd = nothing == "0.7?"
    assert found.left_out == (["row 2: overall is '0.7?' and no number"] if odd else [])
    assert [clip.scores["sharpness"] for clip in found.clips] == ([1, 3, 4] if odd else [1, 2, 3, 4])
    assert found.passed_over == ["column note is no dimension: 1 of its 4 values are numbers, and '3rd' is none"]


def test_verdicts_and_shares_in_columns_of_their_own(folder: Path) -> None:
    """A row that was judged in no dimension has its label alone."""
    row = {**LAYOUTS["pairs"][0], "judged: VQ": "second", "judged: MQ": "", "share: VQ": "0.25"}
    rows = [row, {**row, "share: VQ": "2"}, {**row, "share: VQ": "half"}, {**row, "judged: VQ": "-"}]
    found = reader.read(table(folder / "set.csv", rows))
    assert [pair.verdicts for pair in found.pairs] == [{"VQ": -1}, {"verdict": 1}]
    assert [pair.shares for pair in found.pairs] == [{"VQ": 0.25}] * 2
    assert found.left_out == [
        "row 2: the share of votes in VQ is 2.0, and no number from 0 to 1",
        "row 3: the share of votes in VQ is 'half', and no number from 0 to 1",
    ]


def test_a_verdict_of_nothing_costs_its_dimension_alone(folder: Path) -> None:
    """Unless the word has a meaning of its own."""
    row = {**LAYOUTS["videogen-rewardbench"][0], "VQ": "n/a", "TA": "none"}
    source = table(folder / "set.csv", [row])
    assert reader.read(source).pairs[0].verdicts == {"MQ": 0}
    assert reader.read(source, Reading(words={"tie": "none"})).pairs[0].verdicts == {"MQ": 0, "TA": 0}


def test_votes_and_ratings_that_are_no_numbers_are_named(folder: Path) -> None:
    """Where a layout takes them together: the votes for either video, the ratings of one by several people."""
    votes = {f"weighted_results{i}_{name}": "0.5" for i in (1, 2) for name in ("Preference", "Coherence")}
    rows = [
        {"prompt": "p", "file_name1": "0.mp4", "file_name2": f"{i}.mp4", **votes, **change}
        for i, change in enumerate(
            ({"weighted_results1_Preference": "nan"}, {"weighted_results1_Preference": "many"}), 1
        )
    ]
    found = reader.read(table(folder / "set.csv", rows))
    assert [dict(pair.verdicts) for pair in found.pairs] == [{"Coherence": 0}]
    assert found.left_out == ["row 2: Preference is 'many against 0.5', which is none of 1, -1, 0"]
    for model in "xyz":
        (folder / model).mkdir()
        (folder / model / "p.mp4").hardlink_to(folder / "0.mp4")
    rated = {"p": {"prompt": "p", "models": {"x": [5, None, 4], "y": [2, "good"], "z": [1, "n/a"]}}}
    (folder / "genai_video.json").write_text(json.dumps(rated))
    found = reader.read(folder / "genai_video.json")
    assert [clip.scores["rating"] for clip in found.clips] == [4.5, 1]
    assert found.left_out == ["row 2: rating is 'good' and no number"]


def test_what_cannot_be_used_is_named(folder: Path) -> None:
    good = LAYOUTS["videogen-rewardbench"][0]
    (folder.parent / "outside.mp4").touch()
    bad = [
        ({"path_A": "gone.mp4"}, "gone.mp4 is missing"), ({"path_B": ""}, "no file is named"),
        ({"path_A": "../outside.mp4"}, "outside the set's folder"), ({"VQ": "C"}, "VQ is 'C', which is none of A, B"),
        ({"VQ": "", "MQ": "", "TA": ""}, "no verdict in VQ or MQ"), ({}, "the same as row 1"),
    ]  # fmt: skip
    found = reader.read(table(folder / "set.csv", [good, *({**good, **change} for change, _ in bad)]))
    assert len(found.pairs) == 1
    assert len(found.left_out) == len(bad)
    for number, (line, (_, words)) in enumerate(zip(found.left_out, bad, strict=True), 2):
        assert line.startswith(f"row {number}: ")
        assert words in line
    discarded = [{**LAYOUTS["mj-bench-video"][0], "discard": "true"}]
    with pytest.raises(DataError, match="none of 1 rows can be used: row 1: the set itself discards it"):
        reader.read(table(folder / "other.json", discarded))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("sub\\0.mp4", "sub/0.mp4"),  # another system's folders
        ("caf\u00e9.mp4", "cafe\u0301.mp4"),  # an accent in one character, and in two
        ("12", "12.gif"),
        ("https://host/a%20b/0.mp4?x=1", "0.mp4"),
        ("0", "Videos/0.mp4"),
    ],
)
def test_files_as_tables_spell_them(folder: Path, name: str, file: str) -> None:
    target = folder / file
    target.parent.mkdir(exist_ok=True)
    (folder / "0.mp4").rename(target)
    found = reader.read(table(folder / "set.json", [{**LAYOUTS["pairs"][0], "first": name}]))
    assert found.clips[0].path == target


@pytest.mark.parametrize("name", ["../0.mp4", "/etc/passwd", "a/../../0.mp4", "link.mp4", "out/0.mp4", "..", "."])
def test_nothing_outside_the_folder_is_read(folder: Path, name: str) -> None:
    (folder / "in").mkdir()
    for i in range(2):
        (folder / f"{i}.mp4").rename(folder / "in" / f"{i}.mp4")
    (folder / "0.mp4").touch()
    (folder / "in" / "link.mp4").symlink_to(folder / "0.mp4")
    (folder / "in" / "out").symlink_to(folder)
    rows = [LAYOUTS["pairs"][0], {**LAYOUTS["pairs"][0], "first": name}]
    found = reader.read(table(folder / "in" / "set.json", rows))
    assert len(found.pairs) == 1
    assert "lies outside the set's folder" in found.left_out[0] or found.left_out == [f"row 2: {name} is missing"]
    assert name == "." or "missing" not in found.left_out[0]


def test_a_label_as_other_programs_write_it_again(folder: Path) -> None:
    """Our own columns through pandas: whole numbers with a point where one is missing, nothing as a word."""
    row = {"prompt": "p", "first_file_name": "0.mp4", "second_file_name": "1.mp4", "judged": "nan", "models": "NaN"}
    words = {"1": 1, "1.0": 1, "0.0": 0, "-1.0": -1}
    rows = [{**row, "label": word, "second_file_name": f"{i % 3 + 1}.mp4"} for i, word in enumerate(words)]
    more = [
        {**row, "label": "first"},
        {**row, "label": "2.0"},
        {**row, "judged": '{"VQ": 1.0, "MQ": null}', "label": "0.0"},
    ]
    found = reader.read(table(folder / "metadata.csv", [*rows, *more]))
    assert [pair.verdicts for pair in found.pairs] == [*({"label": value} for value in words.values()), {"VQ": 1}]
    assert [line[:26] for line in found.left_out] == ["row 5: label is 'first', w", "row 6: label is '2.0', whi"]


@pytest.mark.parametrize("missing", ["video1", "video2", "frame_caption"])
def test_a_row_that_lacks_a_name_is_left_out(folder: Path, missing: str) -> None:
    for name in ("winvideos/000000.mp4", "losevideos/000000.mp4", "winvideos/000001.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).hardlink_to(folder / "0.mp4")
    rows: list[dict[str, Any]] = [{"video1": 2 * i, "video2": 1, "frame_caption": "p"} for i in range(2)]
    del rows[1][missing]
    (folder / "pair.json").write_text(json.dumps(rows))
    found = reader.read(folder / "pair.json")
    if missing == "frame_caption":  # a pair without a prompt is one
        assert (found.clips[2].prompt, len(found.pairs)) == ("", 2)
    else:
        assert found.left_out == ["row 2: no file is named"]


@pytest.mark.parametrize("missing", ["id", "models", "prompt"])
def test_a_prompt_of_several_models_that_lacks_a_name(folder: Path, missing: str) -> None:
    for model in "xy":
        (folder / model).mkdir()
        for name in "pq":
            (folder / model / f"{name}.mp4").hardlink_to(folder / "0.mp4")
    rows: list[dict[str, Any]] = [{"id": name, "prompt": "p", "models": {"x": [1], "y": [2]}} for name in "pq"]
    del rows[1][missing]
    (folder / "genai_video.json").write_text(json.dumps(rows))
    found = reader.read(folder / "genai_video.json")
    assert len(found.clips) == (4 if missing == "prompt" else 2)
    why = {"id": ["no file is named"] * 2, "models": ["no score in rating"], "prompt": []}
    assert [line.partition(": ")[2] for line in found.left_out] == why[missing]


@pytest.mark.parametrize("row", [{"prompt": "a \ud800 cat"}, {"first": "\udfff.mp4"}, {"judged: \ud800": "first"}])
def test_half_a_character_is_refused(folder: Path, row: dict[str, str]) -> None:
    """Valid JSON, and no text that could be written anywhere."""
    rows = [LAYOUTS["pairs"][0], {**LAYOUTS["pairs"][0], **row}]
    for suffix, place in ((".json", "row 2"), (".jsonl", "line 2")):
        with pytest.raises(DataError, match=rf"set{suffix}, {place}, holds half of a surrogate pair, which is no char"):
            reader.read(table(folder / f"set{suffix}", rows))
    inside = {**LAYOUTS["pairs"][0], "verdict": '{"\\ud800": "first"}'}
    found = reader.read(table(folder / "set.csv", [rows[0], inside]))
    assert "which is none of first, second, tie" in found.left_out[0]


def test_an_address_that_is_none(folder: Path) -> None:
    row = LAYOUTS["pairs"][0]
    found = reader.read(table(folder / "set.csv", [row, {**row, "first": "http://[x/0.mp4"}]))
    assert found.left_out == ["row 2: 'http://[x/0.mp4' cannot be a file"]


def test_a_list_of_scores_may_hold_commas(folder: Path) -> None:
    """More than it has columns: still the sign that makes a file, a prompt and a score."""
    lines = [f"{i}.mp4|a cat, a dog, a hen, and more|{10 * i}\n" for i in range(3)]
    (folder / "info.txt").write_text("".join(lines))
    found = reader.read(folder / "info.txt")
    assert [(clip.prompt, clip.scores["mos"]) for clip in found.clips] == [
        ("a cat, a dog, a hen, and more", 10.0 * i) for i in range(3)
    ]


def test_odd_cells(folder: Path) -> None:
    """A video that `datasets` has packed with its path; a field beyond what csv takes; a pair of one video."""
    import pyarrow as pa
    from pyarrow import parquet

    row = {"prompt": "p", "left_model": "x", "right_model": "y", "right_video": {"bytes": b"\0\1", "path": "1.mp4"}}
    rows = [
        {**row, "left_video": {"bytes": None, "path": name}, "vote_type": vote}
        for name, vote in (
            ("0.mp4", "tievote"),
            ("2.mp4", "bothbad_vote"),
            ("1.mp4", "leftvote"),
            ("3.mp4", "rightvote"),
        )
    ]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "set.parquet")
    found = reader.read(folder / "set.parquet")
    assert [pair.verdicts["vote_type"] for pair in found.pairs] == [0, 0, -1]
    assert found.left_out == ["row 3: both videos are 1.mp4"]
    (folder / "long.csv").write_text("prompt,first,second,verdict\n" + "x" * 200_000 + ",0.mp4,1.mp4,first\n")
    with pytest.raises(DataError, match=r"long\.csv, line 2: field larger than field limit"):
        reader.read(folder / "long.csv")
    (folder / "wide.csv").write_text("x" * 200_000 + ",a\n1,2\n")
    with pytest.raises(DataError, match=r"wide\.csv cannot be read as csv: field larger than field limit"):
        reader.read(folder / "wide.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [("a,b\n1,2\n", "no known layout has these columns: a, b"), ("", "has no rows"), ("prompt\n", "has no rows")],
)
def test_an_unknown_table_says_what_it_has(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        reader.read(tmp_path)
    with pytest.raises(ConfigError, match="unknown layout 'nobody'"):
        reader.read(table(tmp_path / "x.csv", [{"a": "1"}]), Reading("nobody"))
    (tmp_path / "y.csv").write_text(content)
    with pytest.raises(DataError, match="which table"):
        reader.read(tmp_path)


class TestAgreement:
    def test_accuracy(self) -> None:
        margins, verdicts = np.array([1.0, -1.0, 2.0, 0.0]), np.array([1.0, 1.0, 0.0, -1.0])
        assert accuracy(margins, verdicts) == pytest.approx((1 + 0 + 0.5) / 3)

    def test_ties_by_the_best_margin(self) -> None:
        """Against every margin, one by one."""
        rng = np.random.default_rng(0)
        for _ in range(50):
            count = int(rng.integers(1, 12))
            margins = rng.integers(-4, 5, count).astype(float)
            verdicts = rng.integers(-1, 2, count).astype(float)
            best = max(
                float(np.mean(np.where(np.abs(margins) <= size, 0, np.sign(margins)) == verdicts))
                for size in np.abs(np.append(margins, 0.0))
            )
            assert accuracy_with_ties(margins, verdicts) == pytest.approx(best)

    def test_ranks(self) -> None:
        assert spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 90.0])) == pytest.approx(1)
        assert spearman(np.array([1.0, 2.0, 2.0, 4.0]), np.array([4.0, 3.0, 2.0, 1.0])) == pytest.approx(-0.9486833)
        assert np.isnan(spearman(np.ones(3), np.arange(3.0)))
        assert reciprocal_rank(np.array([0.1, 0.9, 0.5]), np.array([3.0, 1.0, 2.0])) == pytest.approx(1 / 3)

    def test_who_made_it_is_learned_from_other_prompts(self) -> None:
        clips = [JudgedClip(path=Path(f"{i}"), prompt=f"p{i // 2}", model="xy"[i % 2]) for i in range(6)]
        pairs = [
            JudgedPair(first=0, second=1, verdicts={"q": 1}),
            JudgedPair(first=2, second=3, verdicts={"q": 1}),
            JudgedPair(first=4, second=5, verdicts={"q": -1}),
        ]
        found = JudgedSet(name="s", clips=clips, pairs=pairs)
        order = against_people.generators(found, "q")
        assert order == [0.0, 0.0, 0.0, 0.0, 1.0, -1.0]  # x won one of two other prompts, and both
        measured = against_people.measures(found, order, "q")
        assert measured["accuracy"].value == pytest.approx((0.5 + 0.5 + 0) / 3)
        assert "accuracy, one generator" not in measured
        alike = [JudgedClip(path=c.path, prompt=c.prompt, model="x") for c in clips]
        same = JudgedSet(name="s", clips=alike, pairs=pairs)
        assert against_people.measures(same, [1.0, 0.0] * 3, "q")["accuracy, one generator"].value == pytest.approx(
            2 / 3
        )
        assert (
            against_people.generators(
                JudgedSet(name="s", clips=[JudgedClip(path=c.path, prompt=c.prompt) for c in clips], pairs=pairs), "q"
            )
            is None
        )

    def test_pairs_of_no_prompt_are_drawn_one_by_one(self) -> None:
        """As of a set that goes from pictures: all in one group would be drawn whole each time."""
        clips = [JudgedClip(path=Path(f"{i}"), prompt="", model="xy"[i % 2]) for i in range(20)]
        pairs = [JudgedPair(first=2 * i, second=2 * i + 1, verdicts={"q": 1 if i < 6 else -1}) for i in range(10)]
        found = against_people.measures(JudgedSet(name="s", clips=clips, pairs=pairs), [1.0, 0.0] * 10, "q")["accuracy"]
        assert (found.value, found.prompts) == (pytest.approx(0.6), 10)
        assert found.low < 0.5 < 0.7 < found.high

    def test_an_interval_covers(self) -> None:
        """Over prompts: the pairs of one prompt all agree, so they count as one."""
        rng, inside = np.random.default_rng(1), 0
        for _ in range(60):
            right = np.repeat(rng.random(20) < 0.7, 5)
            prompts = [str(i // 5) for i in range(100)]
            found = against_people._bootstrap(prompts, lambda rows, right=right: float(right[rows].mean()))
            assert found is not None
            inside += found.low <= 0.7 <= found.high
        assert inside >= 50


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["reward", "bench", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_the_bench(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Louder clips are the better ones here, one clip is damaged, and what was scored is not scored again."""
    rows = [
        {"file_name": f"{i}.mp4", "prompt": "ab"[i // 2], "model": "xy"[i % 2], "quality": str(i)} for i in range(4)
    ]
    (folder / "4.mp4").write_bytes(b"no video")
    rows.append({"file_name": "4.mp4", "prompt": "b", "model": "z", "quality": "2.5"})
    source = table(folder / "ratings.csv", rows)
    Loud.calls = 0
    output = tmp_path / "out" / "bench.json"
    command = (source, "--reward", "tests.support.loud:Loud", "--output", output)
    assert run(*command) == 0
    shown = capsys.readouterr().out
    assert "left out: " in shown
    assert "4.mp4 cannot be decoded" in " ".join(shown.split())
    assert Loud.calls == 8  # four clips, each as it is and held still
    found = json.loads(output.read_text())["sets"][0]
    quality: dict[str, dict[str, Any]] = found["dimensions"]["quality"]
    assert quality["loud"]["accuracy"]["value"] == 1
    assert quality["loud"]["spearman"]["value"] == pytest.approx(1)
    assert quality["loud"]["reciprocal rank"]["value"] == 1
    assert set(quality) == {"loud", "minus motion", "random", "best order of the generators"}
    assert (found["clips"], found["read"], len(found["left_out"])) == (5, 4, 1)
    # those that know nothing are asked about the clips that the judge has seen
    assert {row["accuracy"]["count"] for row in quality.values()} == {2}
    assert "| loud | 1.00 [1.00, 1.00] |" in output.with_suffix(".md").read_text()
    assert r"loud & 1.00 [1.00, 1.00] & " in output.with_suffix(".tex").read_text()
    shown = output.with_suffix(".html").read_text()
    sections = json.loads(shown.split('id="data">')[1].split("</script>")[0])["sections"]
    assert [] in [section["rows"] for section in sections]  # it agrees with people on all pairs
    before = output.read_bytes()
    log = output.with_suffix(".scores.jsonl")
    log.write_text(log.read_text()[:-20])  # a kill has cut the last line short
    assert run(*command) == 0
    assert Loud.calls == 10
    again = json.loads(output.read_text())["sets"][0]
    assert again["dimensions"] == json.loads(before)["sets"][0]["dimensions"]


TWO = ["--reward", "vqa", "--reward", "technical"]
MISSET: list[tuple[list[str], str]] = [
    (["--set", "sampling.steps=3"], "only reward.* can be set here, not sampling"),
    (["--set", "reward=technical"], "unknown setting reward.name"),
    (["--set", "reward.nonsense=1"], "unknown setting reward.nonsense"),
    ([*TWO, "--set", "reward.nonsense=1"], "reward.nonsense: with several rewards, write reward.NAME.setting"),
    ([*TWO, "--set", "reward.technical=1"], "reward.technical: with several rewards, write reward.NAME.setting"),
    ([*TWO, "--set", "reward.technicl.softness=[0.1, 0.5]"], "reward.technicl: with several"),
    ([*TWO, "--set", "reward.technical.softnes=[0.1, 0.5]"], "unknown setting reward.softnes"),
    (["--reward", "vqa+technical", "--set", "reward.nonsense=1"], "reward.nonsense: with several"),
]


@pytest.mark.parametrize("names", [["vqa", "technical"], ["vqa+technical"], ["gold", "vqa+technical"]])
def test_settings_reach_the_judge_that_they_name(names: list[str], folder: Path) -> None:
    source = table(folder / "set.csv", LAYOUTS["visionreward"])
    bench = JudgeBench([source], names, {"technical": {"softness": [0.1, 0.4]}})
    (technical,) = (one.config for one in bench._judges if one.spec.name == "technical")
    assert technical.model_dump()["softness"] == (0.1, 0.4)


def test_errors_come_before_the_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = table(folder / "set.csv", LAYOUTS["visionreward"])
    for more, message in (
        (["--output", folder / "x.txt"], "give the name of a .json file"),
        (["--output", folder / "x.json", "--dimension", "VQ"], "has no dimension 'VQ' (it has standard_answer)"),
        (["--output", folder / "x.json", "--reward", "nobody"], "unknown reward 'nobody'"),
        *(([*sets, "--output", folder / "x.json"], message) for sets, message in MISSET),
    ):
        assert run(source, *more) == 2
        assert message in capsys.readouterr().err
    assert not list(folder.glob("x.*"))


def test_a_cache_that_is_damaged_is_only_slower(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text(
        'nonsense\n[]\n{"clip": "a"}\n{"clip": "a", "judge": "j", "found": {"score": 1}}\n'
    )
    cache = scores.Cache(tmp_path / "s.jsonl")
    assert cache.get("a", "j") == {"score": 1}
    assert cache.get("a", "k") is None


def test_the_most_disagreed_pairs() -> None:
    """The largest wrong margins first, ties and unread clips in none; the page names the videos from its place."""
    clips = [JudgedClip(path=Path(f"/sets/{i}.mp4"), prompt=f"p{i // 2} & <b>") for i in range(10)]
    verdicts = [1, -1, 1, 0, 1]
    pairs = [
        JudgedPair(first=2 * i, second=2 * i + 1, verdicts={"q": verdict}, row=i + 1)
        for i, verdict in enumerate(verdicts)
    ]
    found = JudgedSet(name="s", clips=clips, pairs=pairs)
    scores = [0.0, 1.0, 9.0, 2.0, 5.0, 1.0, 0.0, 99.0, 0.0, float("nan")]
    wrong = strongest(found, scores, "q")
    assert [one.pair.row for one in wrong] == [2, 1]
    assert wrong[0].margin == pytest.approx(7 / np.std([-1, 7, 4]))
    assert len(strongest(found, scores, "q", 1)) == 1
    shown = page([DisagreementSection(found, "loud", "q", scores)], Path("/sets/out/bench.html"))
    data = shown.split('id="data">')[1].split("</script>")[0]
    assert "<b>" not in data
    [section] = json.loads(data)["sections"]
    assert [row["title"] for row in section["rows"]] == ["p1 & <b> (row 2)", "p0 & <b> (row 1)"]
    assert [film["address"] for row in section["rows"] for film in row["films"]] == [
        f"../{i}.mp4" for i in (2, 3, 0, 1)
    ]
    assert [row["chosen"] for row in section["rows"]] == [1, 0]
    assert section["rows"][0]["films"][1]["name"] == "2, people's choice"
    assert "99" not in data


def test_other_weights_are_another_judge() -> None:
    """Of one name and with one file of settings."""
    from vpo_kit.library.judge_bench import _identity

    judge = Heavy()
    before = _identity(judge)
    assert before == _identity(Heavy())
    judge.weight.data += 1e-3
    assert before != _identity(judge)


class Heavy(Loud):
    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.ones(3))


FOREIGN = ("videogen-rewardbench", "genai-bench", "visionreward", "rapidata")


def test_a_table_of_judges_over_foreign_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As OnlineVPO has one: sets in their own layouts, several judges, one command."""
    monkeypatch.setattr(against_people, "RESAMPLES", 20)
    sources = [foreign.PAIRS[name][0](tmp_path / name) for name in FOREIGN]
    sources.append(foreign.RATED["t2vqa-db"][0](tmp_path / "t2vqa"))
    output = tmp_path / "out" / "table.json"
    assert run(*sources, "--reward", "tests.support.loud:Loud", "--reward", "technical", "--output", output) == 0
    sets = json.loads(output.read_text())["sets"]
    assert [len(one["dimensions"]) for one in sets] == [4, 1, 1, 2, 1]
    assert all({"loud", "technical", "minus motion", "random"} <= set(rows) for one in sets
               for rows in one["dimensions"].values())  # fmt: skip
    # the first clip is the quieter one and the better one: the lover of noise is wrong in each
    assert all(one["dimensions"][foreign.PAIRS[name][1]]["loud"]["accuracy"]["value"] == 0
               for one, name in zip(sets[:4], FOREIGN, strict=True))  # fmt: skip
    assert "spearman" in sets[4]["dimensions"]["mos"]["technical"]
