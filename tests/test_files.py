"""Files are whole or not there; what is written is on the disk before anything can say that it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vpo_kit import files
from vpo_kit.errors import OutputError


@pytest.mark.parametrize("folder", [False, True])
def test_whole_or_as_before(tmp_path: Path, folder: bool) -> None:
    """Also where a killed process has left its own part behind."""
    target = tmp_path / "deep" / "thing.json"

    def put(text: str, fails: bool = False) -> None:
        with files.beside(target) as partial:
            assert partial.name == ".thing.part.json"
            assert not partial.exists()
            if folder:
                partial.mkdir()
            (partial / "inside" if folder else partial).write_text(text)
            if fails:
                raise OSError(28, "No space left on device")

    put("first")
    (tmp_path / "deep" / ".thing.part.json").write_text("of a killed process")
    put("second")
    with pytest.raises(OutputError, match=r"cannot write .*thing.json: No space left on device"):
        put("third", fails=True)
    assert (target / "inside" if folder else target).read_text() == "second"
    assert [path.name for path in target.parent.iterdir()] == ["thing.json"]


def test_what_is_removed_is_gone_or_named(tmp_path: Path) -> None:
    files.remove(tmp_path / "nothing")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to("deep")
    files.remove(tmp_path / "link")
    assert (tmp_path / "deep").is_dir()
    files.remove(tmp_path / "deep")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match=r"cannot remove /proc/version: "):  # read-only for root too
        files.remove(Path("/proc/version"))


def test_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        seen.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name}")
        real_sync(handle)

    def replace(self: Path, target: Path) -> Path:
        seen.append(f"name {target.name}")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    files.write(tmp_path / "a.txt", "x")
    assert seen == ["sync .a.part.txt", "name a.txt", f"sync {tmp_path.name}"]
    seen.clear()
    files.write_tensors(tmp_path / "b.safetensors", {"x": torch.ones(2, 3).T})
    assert seen[:2] == ["sync .b.part.safetensors", "name b.safetensors"]
    assert load_file(tmp_path / "b.safetensors")["x"].shape == (3, 2)
    seen.clear()
    files.append(tmp_path / "log.jsonl", "{}")
    files.append(tmp_path / "log.jsonl", "{}")
    assert seen == ["sync log.jsonl", f"sync {tmp_path.name}", "sync log.jsonl"]


def test_a_line_that_was_cut_short_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    files.append(log, "one")
    log.write_text(log.read_text() + "tw")
    files.append(log, "three")
    assert log.read_text().splitlines() == ["one", "tw", "three"]


@pytest.mark.parametrize("linked", [True, False])
def test_links_or_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool) -> None:
    source, target = tmp_path / "a", tmp_path / "more" / "b"
    source.write_text("x")
    if not linked:

        def refused(*_: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refused)
    files.link(source, target)
    files.link(source, target)
    assert target.read_text() == "x"
    assert target.stat().st_nlink == 1 + linked
    assert files.sha256(source) == files.sha256(target)


def test_a_held_folder_is_freed_by_its_holders_death(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from vpo_kit import files\n"
        "with files.held(pathlib.Path(sys.argv[1]), lambda: None): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    def busy() -> None:
        raise OutputError("busy")

    with pytest.raises(OutputError, match="busy"), files.held(tmp_path, busy):
        pass
    holder.kill()
    holder.communicate()
    with files.held(tmp_path, busy):
        pass


def test_a_glance_knows_files_apart(tmp_path: Path) -> None:
    """By their names, sizes and contents, large ones by places; not by times or hidden files."""
    (tmp_path / "a" / ".cache").mkdir(parents=True)
    (tmp_path / "a" / "x.bin").write_bytes(bytes(9 * 2**20))
    seen = [files.glance(tmp_path / "a")]
    (tmp_path / "a" / ".cache" / "lock").write_text("a")
    assert files.glance(tmp_path / "a") == files.glance(shutil.copytree(tmp_path / "a", tmp_path / "b")) == seen[0]
    for content in (bytes(9 * 2**20 + 1), bytes([1]) * 9 * 2**20, bytes(8 * 2**20) + bytes([1]) * 2**20):
        (tmp_path / "a" / "x.bin").write_bytes(content)
        seen.append(files.glance(tmp_path / "a"))
    (tmp_path / "a" / "x.bin").rename(tmp_path / "a" / "y.bin")
    seen.append(files.glance(tmp_path / "a"))
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("left", [".lock", ".config.part.yaml", ".a.b.81-9f.part.json", ".step-000001.part"])
def test_what_a_killed_process_left_is_nothing(tmp_path: Path, left: str) -> None:
    assert files.bare(tmp_path / "none")
    (tmp_path / left).touch()
    assert files.bare(tmp_path)
    for name in ("config.yaml", ".parts", ".gitignore"):
        (tmp_path / name).touch()
        assert not files.bare(tmp_path)
        assert not files.bare(tmp_path / name)
        (tmp_path / name).unlink()


def test_what_is_linked_in_may_be_write_protected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As DVC and git-annex leave videos; to root nothing is protected, so the way it is opened is looked at."""
    opened: list[str] = []
    read = Path.open

    def spy(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        opened.append(mode)
        return read(path, mode, *rest, **more)

    (tmp_path / "a.mp4").write_bytes(b"video")
    (tmp_path / "a.mp4").chmod(0o444)
    monkeypatch.setattr(Path, "open", spy)
    with files.beside(tmp_path / "set") as partial:
        files.link(tmp_path / "a.mp4", partial / "a.mp4")
    assert (tmp_path / "set" / "a.mp4").read_bytes() == b"video"
    assert set(opened) == {"rb"}


def test_a_folder_that_was_claimed_for_nothing_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), files.claimed(tmp_path / "a", "run"):
        raise ValueError("no")
    assert not (tmp_path / "a").exists()
    with files.claimed(tmp_path / "a", "run"):
        (tmp_path / "a" / "b").write_text("c")
        with pytest.raises(OutputError, match="is in use by another run"), files.claimed(tmp_path / "a", "run"):
            pass
    assert (tmp_path / "a" / "b").is_file()
    (tmp_path / "mine").mkdir()
    with files.claimed(tmp_path / "mine", "run"):
        pass
    assert (tmp_path / "mine").is_dir()
