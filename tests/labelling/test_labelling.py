"""Labellers by name: those that ship, and one of a test's own, which is one small file and one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.support.bright_pairs import fails, works
from vpo_kit import make_pairs
from vpo_kit.errors import ConfigError
from vpo_kit.labelling import base
from vpo_kit.labelling.by_reward import ByReward
from vpo_kit.labelling.by_scores import ByScores
from vpo_kit.labelling.people.by_people import ByPeople
from vpo_kit.labelling.vlm.by_vlm import ByVlm
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Pair, Scores
from vpo_kit.pairing.settings import Labelling
from vpo_kit.registry import LABELLERS
from vpo_kit.testing.pairs import pair_row
from vpo_kit.video import write_video

OWN = '''
import torch

from vpo_kit.labelling.by_scores import ByScores
from vpo_kit.pairing.settings import Labelling
from vpo_kit.pairing.records import Scores


class Settings(Labelling):
    tie_margin: float | None = 0.0
    motion_veto: float | None = 0.0
    channel: int = 0


class Brighter(ByScores):
    """The member that is brighter in one channel wins a segment."""

    Config = Settings
    argument = "channel"
    name = "brighter"

    def scorer(self, device):
        def verdicts(first, second, pair):
            def of(video):
                return [float(video[a:b, self.config.channel].mean()) for a, b in pair.segments]

            wins = [(float(x > y), float(y > x)) for x, y in zip(of(first), of(second))]
            one, other = map(list, zip(*wins))
            return Scores(first=one, second=other, first_clip=sum(one), second_clip=sum(other))

        return verdicts
'''
LINE = "[vpo_kit.labellers]\nbrighter = vpo_brighter:Brighter\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of Python's path in which a package with a labeller is installed."""
    site = tmp_path / "site"
    (site / "vpo_brighter-1.dist-info").mkdir(parents=True)
    (site / "vpo_brighter.py").write_text(OWN)
    (site / "vpo_brighter-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: vpo-brighter\nVersion: 1\n")
    (site / "vpo_brighter-1.dist-info/entry_points.txt").write_text(LINE)
    return site


def a_set(folder: Path) -> Path:
    """Two pairs of 8 frames; in red the first members are brighter in the first half, the second ones after it."""
    pairs = []
    for index in range(2):
        made = pair_row(f"{index:06d}", strategy="independent", seeds=(2 * index, 2 * index + 1), fps=8.0, frames=8)
        for name, levels in ((made.first_file_name, (0.8, 0.2)), (made.second_file_name, (0.2, 0.8))):
            video = torch.full((8, 3, 32, 32), 0.1 + 0.05 * index)
            video[:4, 0], video[4:, 0] = levels
            write_video(folder / name, video, 8.0)
        store.write_latents(folder / made.latents, {who: torch.zeros(4, 2, 4, 4) for who in ("first", "second")})
        pairs.append(made.model_copy(update={"sha256": store.hashes(folder, made.files)}))
    store.write(folder, {"format": 1}, pairs)
    return folder


def test_a_labeller_of_ones_own_by_one_file_and_one_line(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command, where Python sees it installed: labels, settings, its argument, and the set's facts."""
    monkeypatch.syspath_prepend(site)
    folder = a_set(tmp_path / "set")
    shown = works(capsys, "label", folder, "--with", "brighter:0", "--set", "segment_seconds=0.25")
    assert f"{folder}: 2 pairs" in shown
    code, _, error = fails(capsys, "label", folder, "--with", "brighter", "--set", "chanel=1")
    assert (code, "unknown setting chanel (did you mean 'channel'?)" in error) == (2, True)
    found = store.read(folder)
    assert [pair.labels for pair in found.pairs] == [[1, 1, -1, -1]] * 2
    assert {pair.labeller for pair in found.pairs} == {"brighter"}
    assert found.facts["labels"]["labeller"] == "brighter"
    assert (found.facts["labels"]["channel"], found.facts["labels"]["tie_margin"]) == (0, 0.0)
    files = sorted(path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file())
    print("one file and one line of an entry point:", *files)
    assert len(LINE.splitlines()) == 2


class Nearer(ByScores):
    """Greater mean pixel, as a class that is named and not registered."""

    Config = Labelling
    name = "nearer"

    def scorer(self, device: torch.device):  # type: ignore[no-untyped-def]
        def scores(first: torch.Tensor, second: torch.Tensor, pair: Pair) -> Scores:
            one, other = ([float(video.mean())] * len(pair.segments) for video in (first, second))
            return Scores(first=one, second=other, first_clip=one[0], second_clip=other[0])

        return scores


def test_what_was_not_judged_gets_no_label(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a video that is another one by now, whose score would stand under the old one's hash, nor no pair."""
    monkeypatch.syspath_prepend(site)
    folder = a_set(tmp_path / "set")
    before = (folder / "metadata.jsonl").read_bytes()
    shutil.copy(folder / "videos/000000-first.mp4", folder / "videos/000001-second.mp4")
    code, _, error = fails(capsys, "label", folder, "--with", "brighter:0")
    assert (code, "000001-second.mp4 has changed since the set was made" in error) == (1, True)
    assert (folder / "metadata.jsonl").read_bytes() == before
    (folder / "metadata.jsonl").write_text("")
    code, _, error = fails(capsys, "label", folder, "--with", "reward:vqa")
    assert (code, "holds no pairs" in error) == (1, True)


def test_pairs_are_made_and_labelled_by_any_of_them(tiny_wan: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red ball\n")
    settings = {"sampling": {"frames": 5, "height": 32, "width": 32, "steps": 2}, "labelling": {"tie_margin": 0.0}}
    whose = "tests.labelling.test_labelling:Nearer"
    arguments = {"prompts": tmp_path / "prompts.txt", "model": str(tiny_wan), "label": whose, "quiet": True}
    found = make_pairs(tmp_path / "set", **arguments, **settings)
    assert [pair.labeller for pair in found.pairs] == ["nearer"]
    assert found.facts["label"] == whose
    assert found.facts["settings"]["labelling"]["tie_margin"] == 0.0
    with pytest.raises(ConfigError, match="choosing among more needs --label reward:NAME"):
        make_pairs(tmp_path / "more", **arguments, **settings, independent={"num_candidates": 3})
    with pytest.raises(ConfigError, match=r"unknown setting labelling.tie_margn"):
        make_pairs(tmp_path / "more", **arguments, labelling={"tie_margn": 1})
    assert not (tmp_path / "more").exists()


def test_those_that_ship() -> None:
    given = {"base_url": "http://127.0.0.1:1/v1"}
    for text, settings, kind in (
        ("reward:vqa", {}, ByReward), ("reward:vqa:0.5+gold:0.5", {}, ByReward), ("people", {}, ByPeople),
        ("vlm:a/b:c", given, ByVlm), ("vlm", {**given, "model": "a/b:c"}, ByVlm),
    ):  # fmt: skip
        found = base.plan(text, settings)
        assert type(found) is kind
        assert found.chooses == (kind is ByReward)
        kept = {"base_url", "model", "reward", "host", "port", "gold", "finish"} & set(found.config.model_dump())
        assert not kept, "where a server is, and what is written behind a name, belong into no set"
        if kind is ByVlm:
            assert found.config.model == "a/b:c"
    assert set(LABELLERS.targets()) >= {"reward", "vlm", "people"}


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("rewrd:vqa", {}, "cannot be imported"), ("rewrd", {}, "unknown labeller 'rewrd' .did you mean 'reward'"),
        ("reward", {}, "come from reward:NAME"), ("reward:vqq", {}, "did you mean 'vqa'"),
        ("people:ann", {}, "takes nothing behind its name"), ("vlm", {}, "give --base-url URL and --model NAME"),
        ("vlm:a", {"model": "b", "base_url": "http://a/v1"}, "its model is given twice"),
        ("tests.labelling.test_labelling:a_set", {}, "is not a labeller"),
    ],
)  # fmt: skip
def test_names_that_are_none(text: str, settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        base.plan(text, settings)


def test_options_of_another_labeller_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in [
        (["--port", "1"], "go with --with people"), (["--with", "vlm:m", "--seed", "1"], "go with --with people"),
        (["--with", "people", "--model", "m"], "go with --with vlm"), (["--with", "none"], "--with none: give reward"),
    ]:  # fmt: skip
        code, _, error = fails(capsys, "label", tmp_path, *arguments)
        assert (code, words in error) == (2, True), error
