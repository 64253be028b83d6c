"""Looking after pair sets: what is wrong is named, numbers are right, new sets hold every pair once."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
import yaml

from tests.support.bright_pairs import FPS, FRAMES, PROMPTS, edit, fails, pair, works
from vpo_kit.errors import OutputError
from vpo_kit.pairing import arrange, page, store
from vpo_kit.pairing.inspect import duplicates, summarise
from vpo_kit.pairing.records import Hashes, Pair
from vpo_kit.pairing.store import PairSet
from vpo_kit.video import write_video

LABELS = [[1, 1, 0, -1], [0, 0, 0, 0], [-1, -1, -1, 0], [1, 0, 0, 0], [1, -1, 0, 0], [1, 1, 1, 1]]
CLIPS = [1, 0, -1, 1, 0, 1]


def build(folder: Path, model: str = "sprites", channels: int = 4, seed: int = 0) -> Path:
    """A whole set of six pairs, made by hand."""
    torch.manual_seed(seed)
    pairs = []
    for index in range(6):
        made = pair(index, LABELS[index], CLIPS[index])
        for name in (made.first_file_name, made.second_file_name):
            write_video(folder / name, torch.rand(FRAMES, 3, 32, 32), FPS)
        tensors = {name: torch.randn(channels, 2, 4, 4) for name in ("first", "second", "source")}
        store.write_latents(folder / made.latents, tensors)
        pairs.append(made.model_copy(update={"sha256": store.hashes(folder, made.files)}))
    store.write(folder, {"format": 1, "model": model, "seed": seed, "labels": {"tie_margin": 0.5}}, pairs)
    return folder


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("pairs") / "one")


@pytest.fixture
def found(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "one"))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other videos and latents under the same ids."""
    return build(tmp_path_factory.mktemp("pairs") / "two", seed=1)


def rehash(folder: Path, index: int) -> None:
    """Write a pair's hashes anew: the file differs from the others, and is as its line says."""

    def change(row: dict[str, Any]) -> None:
        row["sha256"] = store.hashes(folder, Pair.model_validate(row).files).model_dump()

    edit(folder, index, change)


def flip(folder: Path) -> None:
    file = folder / "videos/000001-first.mp4"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(folder: Path) -> None:
    file = folder / "latents/000002.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def reshape(folder: Path) -> None:
    tensors = {name: torch.zeros(6, 2, 4, 4) for name in ("first", "second", "source")}
    store.write_latents(folder / "latents/000000.safetensors", tensors)
    rehash(folder, 0)


def spoil(folder: Path) -> None:
    tensors = store.read_latents(folder / "latents/000003.safetensors")
    tensors["second"][0, 0, 0, 0] = float("nan")
    store.write_latents(folder / "latents/000003.safetensors", tensors)
    rehash(folder, 3)


def drop_source(folder: Path) -> None:
    tensors = store.read_latents(folder / "latents/000003.safetensors")
    store.write_latents(folder / "latents/000003.safetensors", {name: tensors[name] for name in ("first", "second")})
    rehash(folder, 3)


DAMAGES: list[tuple[Callable[[Path], object], list[str]]] = [
    (flip, ["000001: videos/000001-first.mp4 has changed"]),
    (lambda d: (d / "videos/000004-second.mp4").unlink(), ["000004: videos/000004-second.mp4 is missing"]),
    (lambda d: (d / "latents/000004.safetensors").unlink(), ["000004: latents/000004.safetensors is missing"]),
    (truncate, ["000002: latents/000002.safetensors has changed"]),
    (reshape, ["000000: its latents are 6 x 2 x 4 x 4, those of most pairs 4 x 2 x 4 x 4"]),
    (spoil, ["000003: latents/000003.safetensors holds values that are not finite"]),
    (drop_source, ["000003: latents/000003.safetensors holds no latents named source"]),
    (lambda d: edit(d, 1, lambda row: row["labels"].pop()), ["line 2 (000001)", "3 labels for 4 segments"]),
    (lambda d: edit(d, 1, lambda row: row.update(labels=[1, 1, 2, 0])), ["line 2 (000001)", "labels.2"]),
    (lambda d: edit(d, 1, lambda row: row.update(label=None)), ["000001: only one of labels"]),
    (lambda d: edit(d, 1, lambda row: row["scores"]["second"].pop()), ["000001: scores: 4 and 3 values"]),
    (lambda d: edit(d, 1, lambda row: row["motion"].update(first=[0, 1, 2, 1e999])), ["000001: motion", "finite"]),
    (lambda d: edit(d, 5, lambda row: row.update(id="000000")), ["000000: 2 pairs have this id"]),
    (lambda d: edit(d, 5, lambda row: row["sha256"].clear()), ["000005"]),
    (lambda d: (d / "latents/old.safetensors").touch(), ["latents/old.safetensors belongs to no pair"]),
    (lambda d: (d / "old.mp4").touch(), ["old.mp4 belongs to no pair"]),
    (lambda d: (d / "videos/old.txt").touch(), ["videos/old.txt belongs to no pair"]),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "parts"), DAMAGES, ids=[parts[0] for _, parts in DAMAGES])
def test_check_names_what_is_wrong_and_nothing_else(
    found: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object], parts: list[str]
) -> None:
    damage(found)
    code, lines, error = fails(capsys, "pair", "check", found)
    assert code == 1
    assert len(lines) == 1, lines
    assert all(part in lines[0] for part in parts), lines
    assert ("1 of 6 pairs are wrong" in error) != ("belong to no pair: 1" in error)


def test_a_pair_that_is_there_twice(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a set had it that went on after its clips had changed, when items were known by their places."""
    lines = (found / "metadata.jsonl").read_text().splitlines()
    again = json.dumps({**json.loads(lines[2]), "id": "000009"})
    (found / "metadata.jsonl").write_text("\n".join([*lines, again]) + "\n")
    code, said, _ = fails(capsys, "pair", "check", found)
    assert (code, said) == (1, ["000009: prompt and videos are those of 000002: the set holds them twice"])


@pytest.mark.parametrize("path", ["../two.safetensors", "/etc/hostname", "latents/../../two.safetensors"])
def test_a_path_that_leaves_the_set_is_never_opened(found: Path, capsys: pytest.CaptureFixture[str], path: str) -> None:
    edit(found, 2, lambda row: row.update(latents=path))
    code, lines, _ = fails(capsys, "pair", "check", found)
    assert code == 1
    assert "line 3 (000002): latents: " in lines[0]
    assert "must stay inside the set" in lines[0]
    assert lines[1:] == ["latents/000002.safetensors belongs to no pair"]


def test_check_names_every_wrong_pair_on_its_own_line(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(found)
    reshape(found)
    (found / "videos/000001-second.mp4").unlink()
    _, lines, error = fails(capsys, "pair", "check", found)
    assert [line.split(":")[0] for line in lines] == ["000000", "000001"]
    assert "000001-first.mp4 has changed" in lines[1]
    assert "000001-second.mp4 is missing" in lines[1]
    assert "2 of 6 pairs are wrong" in error


def test_a_sound_set_passes_also_with_a_page_and_notes_in_it(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    works(capsys, "pair", "inspect", found)
    (found / "notes.md").write_text("made by hand")
    (found / ".hidden").mkdir()
    (found / ".hidden/a.mp4").touch()
    shown = works(capsys, "pair", "check", found, "--decode")
    assert "6 pairs, nothing wrong; latents 4 x 2 x 4 x 4" in " ".join(shown.split())


def test_only_decoding_finds_a_frame_too_few(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(found / "videos/000002-second.mp4", torch.rand(FRAMES - 1, 3, 32, 32), FPS)
    rehash(found, 2)
    works(capsys, "pair", "check", found)
    code, lines, _ = fails(capsys, "pair", "check", found, "--decode")
    assert (code, lines) == (1, ["000002: videos/000002-second.mp4 has 7 frames, not 8"])


def test_decoding_names_a_video_that_is_none(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found / "videos/000002-second.mp4").write_text("no video")
    rehash(found, 2)
    _, lines, _ = fails(capsys, "pair", "check", found, "--decode")
    assert len(lines) == 1
    assert "000002-second.mp4 cannot be decoded" in lines[0]


@pytest.mark.parametrize("hard_links", [True, False])
def test_merge_keeps_every_pair_once(
    original: Path,
    other: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    hard_links: bool,
) -> None:
    if not hard_links:
        monkeypatch.setattr(os, "link", _no_links)
    output = tmp_path / "both"
    killed = tmp_path / ".both.part/videos"
    killed.mkdir(parents=True)
    (killed / "junk.mp4").touch()
    works(capsys, "pair", "merge", original, other, "--output", output)
    works(capsys, "pair", "check", output)
    assert [path.name for path in tmp_path.iterdir()] == ["both"]
    merged, old = store.read(output), [*store.read(original).pairs, *store.read(other).pairs]
    assert len({new.id for new in merged.pairs}) == len(old) == 12
    for new, was in zip(merged.pairs, old, strict=True):
        assert new.id.endswith(f"-{was.id}")
        assert new.sha256 == was.sha256
        renamed = {"id", "first_file_name", "second_file_name", "latents"}
        assert new.model_dump(exclude=renamed) == was.model_dump(exclude=renamed)
    links = (output / merged.pairs[0].latents).stat().st_nlink
    assert (links > 1) == hard_links
    assert "&id" not in (output / "dataset.yaml").read_text()
    facts = yaml.safe_load((output / "dataset.yaml").read_text())
    assert facts["model"] == "sprites"
    assert "seed" not in facts  # the two differ in it
    assert [origin["facts"]["seed"] for origin in facts["origins"]] == [0, 1]
    assert merged.pairs[6].id.startswith(facts["origins"][1]["prefix"])


def _no_links(*_: object) -> None:
    raise PermissionError("no hard links here")


def test_merge_refuses_what_does_not_fit(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = build(tmp_path / "foreign", model="wan")
    wide = build(tmp_path / "wide", channels=6)
    damaged = Path(shutil.copytree(original, tmp_path / "damaged"))
    flip(damaged)
    before = sorted(tmp_path.iterdir())
    for sets, code, message in [
        ((original, foreign), 2, "was made by sprites"),
        ((original, wide), 1, "6 x 2 x 4 x 4: a set has one shape"),
        ((original, damaged), 1, "000001-first.mp4 has changed"),
        ((original, original), 2, "each of them once"),
        ((original,), 2, "two sets or more"),
    ]:
        got, _, error = fails(capsys, "pair", "merge", *sets, "--output", tmp_path / "new")
        assert got == code
        assert message in error
    got, _, error = fails(capsys, "pair", "merge", original, damaged, "--output", damaged / "new")
    assert (got, "lies inside" in error) == (2, True)
    got, _, error = fails(capsys, "pair", "merge", original, wide, "--output", foreign)
    assert (got, "exists" in error) == (1, True)
    assert sorted(tmp_path.iterdir()) == before


def test_merge_refuses_a_pair_that_two_sets_hold(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A set and its copy with other labels: `check` calls wrong what would come of them. A part goes with the rest, and
    of what people have judged several may have judged one pair.
    """
    copied = Path(shutil.copytree(original, tmp_path / "copied"))
    edit(copied, 0, lambda row: row.update(label=0))
    code, _, error = fails(capsys, "pair", "merge", original, copied, "--output", tmp_path / "both")
    assert code == 1
    assert f"000000 of {copied} and 000000 of {original} are one pair" in error
    assert [path.name for path in tmp_path.iterdir()] == ["copied"]
    works(capsys, "pair", "split", original, "--share", "0.3", "--output", tmp_path / "parts")
    works(
        capsys, "pair", "merge", *(tmp_path / "parts" / side for side in arrange.SIDES), "--output", tmp_path / "whole"
    )
    for folder in (tmp_path / "one", tmp_path / "two"):
        judged = build(folder)
        shutil.rmtree(judged / "latents")
        for index in range(6):
            edit(judged, index, _as_imported)
    works(capsys, "pair", "merge", tmp_path / "one", tmp_path / "two", "--output", tmp_path / "judged")
    works(capsys, "pair", "check", tmp_path / "judged")


def _as_imported(row: dict[str, Any]) -> None:
    row.update(
        strategy="imported", latents=None, segments=[[0, FRAMES]], labels=None, label=None, scores=None, motion=None
    )
    row["sha256"].pop("latents")


def test_a_failed_merge_leaves_nothing(
    original: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write", full)
    with pytest.raises(OutputError, match="No space left"):
        arrange.merge([store.read(original), store.read(other)], tmp_path / "both")
    assert list(tmp_path.iterdir()) == []


def test_split_keeps_every_pair_once_and_no_prompt_on_both_sides(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = store.read(original).pairs
    sides = []
    for seed in (0, 0, 1, 2, 3):
        output = tmp_path / str(len(sides))
        works(capsys, "pair", "split", original, "--share", "0.3", "--seed", seed, "--output", output)
        train, heldout = (store.read(output / side).pairs for side in arrange.SIDES)
        assert sorted(p.id for p in train + heldout) == [p.id for p in whole]
        assert not {p.prompt for p in train} & {p.prompt for p in heldout}
        assert 2 <= len(heldout) <= 3  # 1.8 wanted, and one prompt has two pairs
        assert all(p in whole for p in train + heldout)
        sides.append([p.id for p in heldout])
    assert sides[0] == sides[1]
    assert len({tuple(side) for side in sides}) > 1
    for side in arrange.SIDES:
        works(capsys, "pair", "check", tmp_path / "0" / side)
    assert yaml.safe_load((tmp_path / "0/heldout/dataset.yaml").read_text())["split"]["side"] == "heldout"


def test_split_refuses_a_share_of_nothing(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for share in ("0", "1", "nan"):
        code, _, error = fails(capsys, "pair", "split", found, "--share", share, "--output", found.parent / "new")
        assert (code, "--share" in error) == (2, True)
    assert not (found.parent / "new").exists()


def test_split_of_a_single_prompt_says_so(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(6):
        edit(found, index, lambda row: row.update(prompt="[/b] a star"))
    shown = works(capsys, "pair", "split", found, "--share", "0.3", "--output", found.parent / "new")
    assert "items of '[/b] a star' are on both sides" in " ".join(shown.split())
    assert [len(store.read(found.parent / "new" / side).pairs) for side in arrange.SIDES] == [4, 2]


def test_export_writes_winners_and_counts_the_rest(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(found, 5, lambda row: row.update(labels=None, label=None))
    (found / "videos/000003-second.mp4").unlink()
    output = found.parent / "new/pairs.jsonl"
    shown = works(capsys, "pair", "export", found, "--format", "trl", "--output", output)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    videos = found.resolve() / "videos"
    assert rows == [
        {
            "prompt": PROMPTS[0],
            "chosen": str(videos / "000000-first.mp4"),
            "rejected": str(videos / "000000-second.mp4"),
        },
        {
            "prompt": PROMPTS[2],
            "chosen": str(videos / "000002-second.mp4"),
            "rejected": str(videos / "000002-first.mp4"),
        },
    ]
    assert "left out: 000003: " in shown
    assert "2 pairs; 2 ties and 1 pairs without a label left out" in shown
    code, _, error = fails(capsys, "pair", "export", found, "--output", found / "metadata.jsonl")
    assert (code, "exists" in error) == (1, True)


def test_numbers_against_a_pencil() -> None:
    pairs = [
        pair(0, [1, 1, 0, -1], 1),
        pair(1, [0, 0, 0, 0], 0, eta=None),
        pair(2, [-1, -1, -1, 0], -1),
        pair(3, None, None),
    ]
    summary = summarise(pairs)
    assert (summary.pairs, summary.prompts, summary.strategies) == (4, 3, ["guided"])
    assert summary.etas == pytest.approx((0.70, 0.72, 0.73))
    segments, clips = summary.segments, summary.clips
    assert (segments.first, segments.second, segments.tie, segments.none, segments.count) == (2, 4, 6, 4, 16)
    assert (clips.first, clips.second, clips.tie, clips.none) == (1, 1, 1, 1)
    assert (summary.both, summary.labelled) == (1, 3)
    # margins are 1, 2, 3, 4 in every pair
    assert summary.segment_margins == pytest.approx([1, 1, 1.75, 2.5, 3.25, 4, 4])
    assert summary.clip_margins == pytest.approx([2] * 7)
    # winners: .1 and .2 of the first pair's first member, .1 of its second; .4, .3, .2 of the third pair's second
    motion = summary.motion
    assert motion is not None
    assert (motion.count, motion.less) == (6, 4)
    assert motion.winner == pytest.approx((0.1 + 0.2 + 0.1 + 0.4 + 0.3 + 0.2) / 6)
    assert motion.ratio == pytest.approx(1.3 / (0.4 + 0.3 + 0.4 + 0.1 + 0.2 + 0.3))


def test_duplicates_are_found() -> None:
    def hashed(made: Pair, first: str, second: str, latents: str) -> Pair:
        return made.model_copy(update={"sha256": Hashes(first=first, second=second, latents=latents)})

    same_draw = pair(3, None, None, prompt=PROMPTS[0], seeds=(1, 0))
    found = duplicates([
        hashed(pair(0, None, None), "a", "b", "x"), hashed(pair(1, None, None), "c", "a", "y"),
        hashed(pair(2, None, None), "d", "d", "x"), hashed(same_draw, "e", "f", "z"),
    ])  # fmt: skip
    assert found.videos == [("000000", "000001")]
    assert found.latents == [("000000", "000002")]
    assert found.draws == [("000000", "000003")]
    assert found.twins == ["000002"]


def test_tables_fit_80_columns_and_show_the_numbers(
    found: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = works(capsys, "pair", "inspect", found, "--page", found.parent / "page.html").splitlines()
    assert lines.pop() == f"page: {found.parent / 'page.html'}"
    assert max(map(len, lines)) <= 80
    words = [line.split() for line in lines]
    assert ["segments", "24", "8", "(33%)", "5", "(21%)", "11", "(46%)", "0", "(0%)", "62%"] in words
    assert ["whole", "clips", "6", "3", "(50%)", "1", "(17%)", "2", "(33%)", "0", "(0%)", "75%"] in words
    assert ["pairs", "with", "both", "+1", "and", "-1:", "2", "(33%)"] in words
    assert "13 (54%) of 24 segments are decided, 62% of these for the first" in (found.parent / "page.html").read_text()
    assert not (found / "inspect.html").exists()


class Reader(HTMLParser):
    """Every tag of a page with its attributes, and the text of the paragraphs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def shown(page: str) -> list[dict[str, Any]]:
    """The pairs that a page shows, as its script has them."""
    found: list[dict[str, Any]] = json.loads(page.split('id="data">')[1].split("</script>")[0])["pairs"]
    return found


def test_the_page_escapes_prompts_and_needs_nothing_from_elsewhere(
    found: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = '"><script src="https://example.org/x.js"></script><img onerror=alert(1)>'
    edit(found, 0, lambda row: row.update(prompt=attack, source=attack))
    works(capsys, "pair", "inspect", found)
    text = (found / "inspect.html").read_text()
    assert attack not in text
    parsed = Reader(text)
    assert len(parsed.all("script")) == 2  # the data and the page's own
    assert not parsed.all("img")
    assert shown(text)[0]["title"] == attack  # as words
    assert [a[key] for _, a in parsed.tags for key in ("src", "href") if key in a] == ["data:,"]


@pytest.mark.parametrize("place", ["inspect.html", "../elsewhere/deep/page.html"])
def test_the_page_finds_its_videos_and_shows_the_labels(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    folder = Path(shutil.copytree(original, tmp_path / "a set #1 of 50%"))
    works(capsys, "pair", "inspect", folder, "--page", folder / place)
    pairs, home = shown((folder / place).read_text()), (folder / place).parent
    videos = [(home / unquote(video)).resolve() for found in pairs for video in found["videos"]]
    names = [folder.resolve() / name for p in store.read(original).pairs for name in p.files[:2]]
    assert videos == names
    assert all(video.is_file() for video in videos)
    segments = [segment for found in pairs for segment in found["segments"]]
    kinds = {1: "first", -1: "second", 0: "tie"}
    assert [one["kind"] for one in segments] == [kinds[label] for labels in LABELS for label in labels]
    assert segments[1]["note"] == "0.50 to 1.00 s: first is better (first 2, second 0)"
    assert [segments[1][key] for key in ("start", "end")] == [0.5, 1.0]


def test_the_page_shows_what_was_set_and_folds_the_rest(original: Path) -> None:
    found = store.read(original)
    facts = {"strategy": "guided", "seed": 0, "settings": {"guided": {"eta_min": 0.5, "eta_max": 0.8}, "odd": None}}
    text = page.render(replace(found, facts=facts), summarise(found.pairs), original / "inspect.html")
    rows = re.findall(r"<tr><td>([a-z_.]+)</td><td class=\"words long\">(.*?)</td>", text)
    assert rows == [("strategy", "guided"), ("guided.eta_min", "0.5")]
    assert "<summary>how the set was made</summary>" in text
    broken = page.render(replace(found, facts={"settings": 3}), summarise(found.pairs), original / "inspect.html")
    assert "setting</th>" not in broken


def test_the_page_spreads_its_limit_over_the_set(original: Path, tmp_path: Path) -> None:
    found = store.read(original)
    text = page.render(found, summarise(found.pairs), tmp_path / "page.html", limit=3)
    assert [pair["id"] for pair in shown(text)] == ["000000", "000002", "000004"]
    assert [sum(segment["share"] for segment in pair["segments"]) for pair in shown(text)] == pytest.approx([100] * 3)
    assert "3 of 6 pairs" in text


def test_a_set_behind_a_link_keeps_its_own_addresses(original: Path, tmp_path: Path) -> None:
    """A page inside the set must still find its videos when the set moves."""
    (tmp_path / "link").symlink_to(original)
    found = store.read(tmp_path / "link")
    text = page.render(found, summarise(found.pairs), found.path / "inspect.html", limit=9)
    assert [pair["videos"] for pair in shown(text)] == [list(p.files[:2]) for p in found.pairs]


def test_pairs_without_labels_are_inspected_too() -> None:
    bare = [pair(i, None, None, scores=None, motion=None, strategy="independent", eta=None) for i in range(2)]
    summary = summarise(bare)
    assert (summary.motion, summary.segment_margins, summary.etas) == (None, None, None)
    text = page.render(PairSet(Path("x"), {"model": "m"}, bare, []), summary, Path("x/inspect.html"), limit=9)
    assert [segment["kind"] for pair in shown(text) for segment in pair["segments"]] == ["none"] * 8
    assert "2 pairs of 2 prompts, without labels yet." in text


def test_a_page_must_be_html_and_a_set_must_have_pairs(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = fails(capsys, "pair", "inspect", found, "--page", found / "metadata.jsonl")
    assert (code, ".html" in error) == (2, True)
    (found / "metadata.jsonl").write_text("")
    for command in ("inspect", "check"):
        code, _, error = fails(capsys, "pair", command, found)
        assert (code, "holds no" in error) == (1, True)


def test_a_set_reads_as_a_videofolder(found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    works(capsys, "pair", "inspect", found)
    works(capsys, "pair", "export", found, "--output", tmp_path / "trl.jsonl")
    code = (
        "import json, sys, datasets\n"
        "datasets.disable_progress_bars()\n"
        "rows = datasets.load_dataset('videofolder', data_dir=sys.argv[1])['train']\n"
        "videos = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Video)]\n"
        "for name in videos: rows = rows.cast_column(name, datasets.Video(decode=False))\n"
        "trl = datasets.load_dataset('json', data_files=sys.argv[2])['train']\n"
        "print(json.dumps([videos, list(rows), trl.column_names, len(trl)]))\n"
    )
    offline = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(found), str(tmp_path / "trl.jsonl")],
        capture_output=True, text=True, check=False, env={**os.environ, **offline},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    videos, rows, columns, count = json.loads(done.stdout)
    assert videos == ["first", "second"]
    assert (columns, count) == (["prompt", "chosen", "rejected"], 4)
    pairs = store.read(found).pairs
    assert len(rows) == len(pairs)
    for row, made in zip(rows, pairs, strict=True):
        assert [row["first"]["path"], row["second"]["path"]] == [str(found / name) for name in made.files[:2]]
        for name in ("id", "prompt", "latents", "labels", "label", "eta", "frames"):
            assert row[name] == getattr(made, name), name
