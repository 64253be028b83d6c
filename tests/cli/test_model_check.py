"""`vpo model check`: its lines, its file, and its exit code where an adapter is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import fails, main_ok
from vpo_kit.models.wan import WanModel


def test_a_right_adapter(tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    main_ok(
        ["model", "check", tiny_wan, "--height", 32, "--width", 32, "--call", "max_sequence_length=16", "--json", file]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "WanPipeline, adapter vpo_kit.models.wan:WanModel (vpo-kit)"
    assert lines[1].startswith("9 frames of 32 x 32, 3 steps, float32; chosen small: frames go by 4,")
    assert all(len(line) <= 80 for line in lines)
    found = json.loads(file.read_text())
    assert found["call"] == {"frames": 9, "height": 32, "width": 32, "steps": 3, "more": {"max_sequence_length": 16}}
    assert len(found["findings"]) == len([line for line in lines if line.startswith("ok ")]) >= 20
    assert all(one["passed"] and one["figure"] is not None for one in found["findings"])


def test_a_wrong_adapter(tiny_wan: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WanModel, "normalise", lambda self, latents: latents)
    code, said = fails(capsys, "model", "check", tiny_wan)
    assert code == 1
    assert said == "vpo: 1 of 24 checks fail: encode and decode as the autoencoder alone\n"


def test_what_is_no_pipeline_of_a_known_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no model_index.json" in fails(capsys, "model", "check", tmp_path)[1]
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    assert "is a StableDiffusionPipeline: supported are" in fails(capsys, "model", "check", tmp_path)[1]
    assert "write it as NAME=VALUE" in fails(capsys, "model", "check", tmp_path, "--call", "x")[1]
