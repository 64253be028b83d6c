"""Items of a set are known by what is in them: its data may change between a kill and what goes on after it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vpo_kit import content
from vpo_kit.cli import clips as clips_command
from vpo_kit.errors import ConfigError
from vpo_kit.library.pair import make_pairs
from vpo_kit.pairing import make, store
from vpo_kit.pairing.store import PairSet


def test_keys() -> None:
    assert content.key("a", 1) == content.key("a", 1) != content.key("a", "1")
    assert len({content.key("a", "b"), content.key("ab"), content.key(["a", "b"]), content.key("a", "b", None)}) == 4
    assert content.distinct(["x", "y"]) == ["x", "y"]
    three = content.distinct(["x", "y", "x", "x"])
    assert len(set(three)) == 4
    assert content.distinct(["x", "x"]) == [three[0], three[2]]  # one more changes nothing for those before


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips, each with its caption beside it."""
    folder = tmp_path_factory.mktemp("clips") / "made"
    clips_command.clips(folder, 5, seed=3)
    for number, line in enumerate((folder / "metadata.jsonl").read_text().splitlines()):
        text = line.split('"text": "')[1].split('"')[0]
        (folder / f"{number:05d}.txt").write_text(text)
    (folder / "metadata.jsonl").unlink()
    return folder


def take(source: Path, folder: Path, number: int, name: str) -> None:
    folder.mkdir(exist_ok=True)
    for suffix in (".mp4", ".txt"):
        shutil.copy(source / f"{number:05d}{suffix}", folder / f"{name}{suffix}")


def rename(folder: Path, old: str, new: str) -> None:
    for suffix in (".mp4", ".txt"):
        (folder / f"{old}{suffix}").rename(folder / f"{new}{suffix}")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def killed_after(count: int, work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do `work` until so many items are made."""
    left, put = [count], make.Folder.put

    def stopping(self: make.Folder, *arguments: Any) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        put(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(make.Folder, "put", stopping)
        with pytest.raises(KeyboardInterrupt):
            work()


def more(source: Path, folder: Path) -> None:
    """One clip is added, and a copy of another."""
    take(source, folder, 4, "0")
    take(source, folder, 1, "aa")


def others(source: Path, folder: Path) -> None:
    """Two change places, one gets another name, one goes, and one has another caption."""
    for old, new in ("ax", "ca", "xc", "dz"):
        rename(folder, old, new)
    for suffix in (".mp4", ".txt"):
        (folder / f"b{suffix}").unlink()
    (folder / "z.txt").write_text("a red circle")


@pytest.mark.parametrize("change", [more, others])
def test_clips_that_change_after_a_kill(
    change: Callable[[Path, Path], None], tiny_wan: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes on is the set that would have been made of the folder as it is then, each clip in it once."""
    folder = tmp_path / "clips"
    for number, name in enumerate("abcd"):
        take(videos, folder, number, name)

    def made(name: str) -> PairSet:
        settings = {"sampling": {"batch_size": 2, "steps": 1}}  # a pair at a time: no batch changes with its neighbours
        return make_pairs(
            tmp_path / name, strategy="guided", videos=folder, model=str(tiny_wan), label="none", quiet=True, **settings
        )

    killed_after(3, lambda: made("killed"), monkeypatch)
    change(videos, folder)
    whole, killed = made("whole"), made("killed")
    names = sorted(path.name for path in folder.glob("*.mp4"))
    assert [pair.source.partition("@")[0] for pair in killed.pairs if pair.source] == names
    assert [pair.prompt for pair in killed.pairs] == [
        (folder / name).with_suffix(".txt").read_text().strip() for name in names
    ]
    assert len({pair.seeds for pair in killed.pairs}) == len(names)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert [pair.id for pair in whole.pairs] == [f"{number:06d}" for number in range(len(names))]


def test_prompts_that_change_after_a_kill(tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\ntwo\nthree\n")

    def made(name: str) -> PairSet:
        settings = {"sampling": {"batch_size": 2, "steps": 1}}
        return make_pairs(tmp_path / name, prompts=prompts, model=str(tiny_wan), label="none", quiet=True, **settings)

    killed_after(2, lambda: made("killed"), monkeypatch)
    prompts.write_text("three\nnone before\ntwo\n")
    made("whole")
    assert [pair.prompt for pair in made("killed").pairs] == ["three", "none before", "two"]
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_killed_while_it_gives_the_numbers(
    tiny_wan: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "clips"
    for number, name in enumerate("ab"):
        take(videos, folder, number, name)

    def made(name: str) -> None:
        settings = {"sampling": {"batch_size": 2, "steps": 1}}
        make_pairs(tmp_path / name, strategy="real", videos=folder, model=str(tiny_wan), quiet=True, **settings)

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    for at in ("files.link", "store.write", "Folder.tidy"):
        with monkeypatch.context() as patched:
            patched.setattr(f"vpo_kit.pairing.make.{at}", stopped)
            with pytest.raises(KeyboardInterrupt):
                made("killed")
        assert (tmp_path / "killed" / ".parts").is_dir()
    assert (tmp_path / "killed" / "metadata.jsonl").is_file()
    made("killed")
    made("whole")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_half_made_set_of_places_is_not_taken_up(tiny_wan: Path, tmp_path: Path) -> None:
    """Format 2 drew seeds from places: it is read where it is whole, and else refused in one line."""
    prompts, output = tmp_path / "prompts.txt", tmp_path / "set"
    prompts.write_text("one\ntwo\n")
    settings: dict[str, Any] = {"prompts": prompts, "model": str(tiny_wan), "label": "none", "quiet": True}
    settings["sampling"] = {"batch_size": 4, "steps": 1}
    made = make_pairs(output, **settings)
    store.write(output, {**made.facts, "format": 2}, made.pairs)
    assert len(make_pairs(output, **settings).pairs) == 2
    (output / "metadata.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"begun by vpo 0\.2\.0, which knew .* by their places .* or begin anew$"):
        make_pairs(output, **settings)
