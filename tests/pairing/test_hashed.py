"""Hashes of a set's files that are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.offline_run import make_set
from vpo_kit import files
from vpo_kit.pairing import store
from vpo_kit.pairing.hashed import Hashed
from vpo_kit.pairing.usable import usable

SHAPE = (8, 3, 4, 4)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The files that are hashed."""
    monkeypatch.setenv("VPO_CACHE", str(tmp_path / "cache"))
    names: list[str] = []
    real = files.sha256

    def sha256(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(files, "sha256", sha256)
    return names


def test_a_start_reads_no_tensors_and_hashes_what_is_new(
    read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read and hashed every latents file of a set at each start of each process."""
    path = make_set(tmp_path / "set")
    found = store.read(path)
    monkeypatch.setattr(store, "read_latents", lambda path: pytest.fail(f"{path} is read"))

    def start() -> tuple[list[str], list[str]]:
        read.clear()
        lines: list[str] = []
        kept = usable(found, SHAPE, lambda pair: True, lines.append)
        return sorted(read), [pair.id for pair in kept] + lines

    names = [f"{i}.safetensors" for i in range(8)]
    assert start() == (names, [f"p{i}" for i in range(8)])
    assert start() == ([], [f"p{i}" for i in range(8)])
    os.utime(path / "latents" / "3.safetensors")
    assert start() == (names[3:4], [f"p{i}" for i in range(8)])
    tensors = load_file(path / "latents" / "5.safetensors")
    save_file({name: torch.zeros_like(value) for name, value in tensors.items()}, path / "latents" / "5.safetensors")
    for hashed in (names[5:6], []):
        again, said = start()
        assert again == hashed
        assert said[:-1] == [f"p{i}" for i in range(8) if i != 5]
        assert "p5: latents/5.safetensors has changed" in said[-1]


def test_damaged_lines_cost_a_look(read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name)
    known = Hashed(tmp_path)
    wanted = {name: known(tmp_path / name) for name in "abc"}
    known.keep()
    (kept,) = (tmp_path / "cache" / "sets").iterdir()
    lines = kept.read_text().split("\n")[1:]
    kept.write_bytes(
        "\n".join([lines[0][:-9], lines[1], '["c", null, 1, "x"]', "[" * 9999, lines[2][:5]]).encode() + b"\xff"
    )
    read.clear()
    again = Hashed(tmp_path)
    assert {name: again(tmp_path / name) for name in "abc"} == wanted
    assert read == ["a", "c"]
    monkeypatch.setenv("VPO_CACHE", "/dev/null/none")
    lost = Hashed(tmp_path)
    assert lost(tmp_path / "a") == wanted["a"]
    lost.keep()
