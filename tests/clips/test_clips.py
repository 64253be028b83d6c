"""Folders of real clips: what is listed, what is known of each file and how long that stays so."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.support.footage import VP9, grey, levels, same_greys, with_sound
from vpo_kit import clips
from vpo_kit.clips import index, read_folder
from vpo_kit.errors import DataError
from vpo_kit.library import display, heartbeat, left_out, sources
from vpo_kit.models.settings import Settings
from vpo_kit.processes import Processes
from vpo_kit.video import SUFFIXES, Extent, scan

SETTINGS = Settings(frames=9, height=32, width=32, fps=8, steps=1, guidance=1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VPO_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "clips"
    made.mkdir()
    for i in range(3):
        grey(made / f"{i}.mp4", 9 + i)
    return made


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were looked through."""
    seen: list[str] = []

    def watched(paths: Sequence[Path]) -> list[Extent | str]:
        seen.extend(path.name for path in paths)
        return scan(paths)

    monkeypatch.setattr(index, "scan", watched)
    return seen


NAMES = ["0.mp4", "1.mp4", "2.mp4"]


def frames(known: dict[str, index.IndexedFile]) -> dict[str, int]:
    return {name: one.found.frames for name, one in known.items() if isinstance(one.found, Extent)}


class TestIndex:
    def test_what_is_known_is_not_looked_through_again(self, folder: Path, scanned: list[str]) -> None:
        calls: list[tuple[int, int]] = []
        first = clips.look_through(folder, NAMES, lambda done, total: calls.append((done, total)))
        assert (sorted(scanned), calls[0], calls[-1]) == (NAMES, (0, 3), (3, 3))
        assert frames(first) == {"0.mp4": 9, "1.mp4": 10, "2.mp4": 11}
        calls.clear()
        assert clips.look_through(folder, NAMES, lambda done, total: calls.append((done, total))) == first
        assert (len(scanned), calls) == (3, [])
        assert list(clips.look_through(folder, ["1.mp4"])) == ["1.mp4"]
        assert not list(folder.glob(".*")), "the folder may be somebody else's"

    def test_a_changed_file_is(self, folder: Path, scanned: list[str]) -> None:
        before = clips.look_through(folder, NAMES)
        scanned.clear()
        grey(folder / "1.mp4", 17)
        after = clips.look_through(folder, NAMES)
        assert (scanned, frames(after)["1.mp4"]) == (["1.mp4"], 17)
        assert before["1.mp4"].sha256 != after["1.mp4"].sha256
        assert clips.look_through(folder, NAMES) == after

    def test_the_same_content_is_known_by_its_hash(self, folder: Path, scanned: list[str]) -> None:
        """Touched, moved, copied."""
        before = clips.look_through(folder, NAMES)
        scanned.clear()
        os.utime(folder / "0.mp4", ns=(1, 1))
        (folder / "1.mp4").rename(folder / "3.mp4")
        shutil.copy(folder / "2.mp4", folder / "4.mp4")
        after = clips.look_through(folder, ["0.mp4", "2.mp4", "3.mp4", "4.mp4"])
        assert scanned == []
        assert frames(after) == {"0.mp4": 9, "3.mp4": 10, "2.mp4": 11, "4.mp4": 11}
        assert after["3.mp4"].sha256 == before["1.mp4"].sha256

    def test_files_without_video_are_remembered_too(self, folder: Path, scanned: list[str]) -> None:
        (folder / "bad.mp4").write_bytes(b"no video")
        for _ in range(2):
            known = clips.look_through(folder, ["bad.mp4", "gone.mp4"])
            assert list(known) == ["bad.mp4"]
            assert str(known["bad.mp4"].found).startswith("cannot be decoded as a video: ")
        assert scanned == ["bad.mp4"]

    def file(self, folder: Path) -> Path:
        (found,) = (folder.parent / "cache" / "clips").iterdir()
        return found

    def test_damage_costs_a_look_and_no_more(self, folder: Path, scanned: list[str]) -> None:
        whole = clips.look_through(folder, NAMES)
        lines = self.file(folder).read_text().splitlines()
        for damage in (
            "{",
            "null",
            "[1]",
            '{"name": "1.mp4"}',
            lines[2][:-9],
            lines[2].replace('"frames"', '"x"'),
            "\udcff",
        ):
            text = "\n".join([*lines[:2], damage, lines[3]]) + "\n"
            self.file(folder).write_text(text, errors="surrogateescape")
            scanned.clear()
            assert clips.look_through(folder, NAMES) == whole
            assert len(scanned) == 1
        for head in ("", "no json", '{"reader": "0"}\n' + lines[1]):
            self.file(folder).write_text(head)
            scanned.clear()
            assert clips.look_through(folder, NAMES) == whole
            assert len(scanned) == 3
            assert len(self.file(folder).read_text().splitlines()) == 4

    def test_a_torn_last_line_does_not_swallow_the_next(self, folder: Path, scanned: list[str]) -> None:
        clips.look_through(folder, NAMES[:2])
        with self.file(folder).open("a") as file:
            file.write('{"name": "2.m')
        clips.look_through(folder, NAMES)
        scanned.clear()
        clips.look_through(folder, NAMES)
        assert len(scanned) <= 1
        clips.look_through(folder, NAMES)
        assert len(scanned) <= 1

    def test_it_does_not_grow_without_end(self, folder: Path) -> None:
        for i in range(90):
            os.utime(folder / "0.mp4", ns=(i, i))
            clips.look_through(folder, NAMES)
        assert len(self.file(folder).read_text().splitlines()) < 60

    def test_without_a_place_for_it_all_goes_on(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder.parent / "file").write_text("")
        monkeypatch.setenv("VPO_CACHE", str(folder.parent / "file"))
        assert len(clips.look_through(folder, NAMES)) == 3

    def test_many_batches_keep_their_order(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(index, "BATCH", 2)
        names = [f"{i:02d}.mp4" for i in range(11)]
        for i, name in enumerate(names):
            shutil.copy(folder / f"{i % 3}.mp4", folder / name)
        assert list(clips.look_through(folder, names)) == names


def told(folder: Path, *names: str) -> None:
    """A listing in which each file has a caption."""
    rows = [json.dumps({"file_name": name, "text": "a dog"}) for name in names]
    (folder / "metadata.jsonl").write_text("\n".join(rows))


class TestProgress:
    def shown(self, work: Callable[[Callable[[int, int], None]], None]) -> str:
        file = io.StringIO()
        with display.look_through_bar(Console(file=file)) as progress:
            work(progress)
        return file.getvalue()

    def test_a_log_speaks_now_and_then(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.shown(lambda progress: progress(32, 64)) == ""
        monkeypatch.setattr(heartbeat, "QUIET_S", 0.05)

        def slowly(progress: Callable[[int, int], None]) -> None:
            progress(32, 64)
            time.sleep(0.3)

        assert self.shown(slowly).startswith("looked through: 32/64 clips (")

    def test_nothing_is_said_where_nothing_is_new(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(heartbeat, "QUIET_S", 0.05)
        assert self.shown(lambda _: time.sleep(0.3)) == ""

    def test_files_are_named_once_up_to_a_number(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for i in range(3):
            grey(tmp_path / f"{i}.mp4", 30, chain="setsar=2/1")
        grey(tmp_path / "short.mp4", 3)
        told(tmp_path, *NAMES, "short.mp4")
        monkeypatch.setattr(left_out, "NAMED", 2)
        file = io.StringIO()
        sources.find_clips(tmp_path, SETTINGS, Processes(), Console(file=file, width=500))
        assert file.getvalue().splitlines() == [
            f"left out: {tmp_path / 'short.mp4'} is shorter than 9 frames at 8 a second: it holds 0.38 s of video",
            f"{tmp_path / '0.mp4'}: its pixels of 2:1 made square",
            f"{tmp_path / '1.mp4'}: its pixels of 2:1 made square",
            "and 1 more such lines",
            f"3 of 3 files lose more than 10% of their area where they are cropped; most, 50%, {tmp_path / '2.mp4'}",
        ]


class TestFolder:
    def test_every_kind_is_listed(self, tmp_path: Path) -> None:
        for suffix in sorted(SUFFIXES):
            grey(tmp_path / f"a{suffix}", 10, *(VP9 if suffix == ".webm" else ()), fps=10)
            (tmp_path / f"a{suffix}").rename(tmp_path / f"{suffix[1:]}{suffix.upper()}")
            (tmp_path / f"{suffix[1:]}.txt").write_text("a dog")
        (tmp_path / "film.wmv").write_bytes(b"")
        (tmp_path / "notes.txt").write_text("no clip")
        found = read_folder(tmp_path, SETTINGS.changed(frames=4))
        assert {clip.path.suffix.lower() for clip in found.clips} == SUFFIXES
        assert found.skipped == []
        assert found.notices == [f"{tmp_path}: files of kinds that are not read are passed over: 1 .wmv"]

    def test_windows_are_of_the_picture(self, tmp_path: Path) -> None:
        """Twenty seconds of sound make no window."""
        with_sound(tmp_path / "b.mp4", grey(tmp_path / "a.mp4", 19), 20)
        told(tmp_path, "b.mp4")
        found = read_folder(tmp_path, SETTINGS)
        assert [clip.name for clip in found.clips] == ["b.mp4@0.00", "b.mp4@1.12"]
        both = torch.cat([clip.read() for clip in found.clips])
        assert same_greys(both, levels(19)[:18])

    def test_what_is_left_out_says_what_it_holds(self, tmp_path: Path) -> None:
        grey(tmp_path / "short.mp4", 8)
        grey(tmp_path / "one.mp4", 1)
        grey(tmp_path / "good.mp4", 9)
        told(tmp_path, "short.mp4", "one.mp4", "good.mp4")
        found = read_folder(tmp_path, SETTINGS)
        wanted = "is shorter than 9 frames at 8 a second: it holds"
        assert found.skipped == [
            f"{tmp_path / 'short.mp4'} {wanted} 1.00 s of video", f"{tmp_path / 'one.mp4'} {wanted} a single frame"
        ]  # fmt: skip
        assert len(read_folder(tmp_path, SETTINGS.changed(frames=1)).clips) == 18

    def test_a_notice_for_each_file(self, tmp_path: Path) -> None:
        grey(tmp_path / "a.mp4", 30, chain="setsar=2/1")
        told(tmp_path, "a.mp4")
        found = read_folder(tmp_path, SETTINGS)
        assert len(found.clips) == 3
        assert found.notices == [f"{tmp_path / 'a.mp4'}: its pixels of 2:1 made square"]

    def test_links(self, tmp_path: Path) -> None:
        """Those inside the folder are followed; one out of it is named, several are counted in one line."""
        folder = tmp_path / "clips"
        for place in (folder, tmp_path / "elsewhere"):
            place.mkdir()
        for name in ("real", "own", "0", "1"):
            (folder / f"{name}.txt").write_text("a dog")
        grey(tmp_path / "elsewhere" / "z.mp4", 9)
        grey(folder / "real.mp4", 9)
        (folder / "own.mp4").symlink_to("real.mp4")
        (folder / "0.mp4").symlink_to(tmp_path / "elsewhere" / "z.mp4")
        assert read_folder(folder, SETTINGS).skipped == [f"0.mp4 lies outside {folder}"]
        (folder / "1.mp4").symlink_to(tmp_path / "elsewhere" / "z.mp4")
        (folder / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        found = read_folder(folder, SETTINGS)
        assert [clip.name for clip in found.clips] == ["own.mp4@0.00", "real.mp4@0.00"]
        assert found.skipped == []
        assert found.notices == [
            f"left out: 2 files that lie outside {folder}, whatever links lead there: 0.mp4 lies outside {folder}",
            f"{folder}: linked folders are not looked into: 1, more for one",
        ]
        (folder / "own.txt").unlink()
        (tmp_path / "secret.txt").write_text("not to be shown")
        (folder / "own.txt").symlink_to(tmp_path / "secret.txt")
        assert any("own.txt lies outside" in line for line in read_folder(folder, SETTINGS).skipped)

    def test_a_file_that_cannot_be_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        grey(tmp_path / "a.mp4", 9)
        told(tmp_path, "a.mp4")
        monkeypatch.setattr("vpo_kit.clips.folder.look_through", lambda *_: {})
        with pytest.raises(DataError, match=r"a.mp4 cannot be opened"):
            read_folder(tmp_path, SETTINGS)
