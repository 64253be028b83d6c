"""Runs on clips and pictures of several shapes: a batch has one, whatever is resumed and however many processes run."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.support import train_runs
from tests.support.commands import fails, main_ok
from tests.support.footage import write
from tests.support.forks import Fork, side_by_side
from vpo_kit.inputs import Shade, as_image
from vpo_kit.testing.families import FAMILIES

SHAPES = "data.buckets=[9x64x32, 5x32x64]"
QUICK = (
    "--set", "batch_size=2", "--set", "lora.rank=2", "--set", "evaluation.num_prompts=0", "--set",
    "evaluation.judges=[]", "--set", "selection.strengths=[]", "--set", "sampling.steps=3",
    *("--set", "sampling.width=32", "--set", "sampling.height=32", "--set", "sampling.frames=9", "--seed", "0"),
)  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three wide clips, two tall ones that are shorter, and a wide one that is too short for the wide shape."""
    path = tmp_path_factory.mktemp("clips")
    draw = np.random.default_rng(0)
    for i, (frames, height, width) in enumerate([(9, 32, 64)] * 3 + [(6, 64, 32)] * 2 + [(7, 36, 64)]):
        write(path / f"{i}.mp4", draw.integers(0, 255, (frames, height, width, 3), np.uint8), fps=8)
        (path / f"{i}.txt").write_text(f"a clip, number {i}")
    return path


def words(model: Path, clips: Path, output: Path, method: str, *more: Any) -> list[str]:
    given = ["train", "--model", model, "--method", method, "--videos", clips, "--output", output, *QUICK]
    return [str(word) for word in (*given, "--set", SHAPES, "--set", "validation.share=0.3", *more)]


def lora(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "lora" / "pytorch_lora_weights.safetensors")


def test_a_run_on_clips_of_several_shapes(
    tiny_wan: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole, resumed, and by two processes: the same weights. What goes into each bucket and is cropped is said."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    command = words(tiny_wan, clips, whole, "sft", "--steps", 4, "--set", "checkpoints.every=2")
    main_ok(command)
    shown = capsys.readouterr().out
    assert "buckets: 3 of 9 frames of 64 x 32, 3 of 5 frames of 32 x 64" in shown
    assert "1 of 6 files lose more than 10% of their area where they are cropped; most, 72%" in shown
    shutil.copytree(whole, again)
    for path in (again / "checkpoints" / "step-000004", again / "lora"):
        shutil.rmtree(path)
    (again / "summary.json").unlink()
    main_ok(["train", "--resume", "--output", again])
    shared = [word if word != str(whole) else str(tmp_path / "shared") for word in command]
    running = side_by_side(2, partial(Fork, train_runs.run, [shared]))
    assert [(process.wait(), process.errors[-500:]) for process in running if process.wait()] == []
    for other, close in ((again, 0.0), (tmp_path / "shared", 1e-5)):
        for key, value in lora(whole).items():
            torch.testing.assert_close(lora(other)[key], value, atol=close, rtol=close)


def test_editing_in_several_shapes(tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    main_ok(words(tiny_wan, clips, tmp_path / "run", "instruct", "--steps", 3, "--reward", "technical"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]


@pytest.mark.parametrize("method", ["online", pytest.param("grpo", marks=pytest.mark.slow)])
def test_pictures_of_several_shapes(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model from an image samples each prompt's candidates in the shape of its picture."""
    FAMILIES["wan2.2-5b-i2v"].build().save_pretrained(tmp_path / "model", safe_serialization=True)
    rows = []
    for i, (height, width) in enumerate([(32, 64), (64, 32), (32, 60), (60, 32)]):
        as_image(Shade(i).read(height, width)).save(tmp_path / f"{i}.png")
        rows.append(json.dumps({"prompt": f"a circle, number {i}", "image": f"{i}.png"}))
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    given = [
        "train", "--model", tmp_path / "model", "--method", method, "--prompts", tmp_path / "train.jsonl", *QUICK,
        "--set", SHAPES, "--steps", 2, "--output", tmp_path / "run", "--reward", "technical",
        "--set", "method.num_candidates=2", "--set", "method.updates_per_rollout=1",
    ]  # fmt: skip
    main_ok(given)
    assert "buckets: 2 of 9 frames of 64 x 32, 2 of 5 frames of 32 x 64" in capsys.readouterr().out
    rows.append(json.dumps({"prompt": "nothing to see"}))
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    code, said = fails(capsys, *given[:-1], "method.updates_per_rollout=1", "--overwrite")
    assert (code, "some prompts have an image" in said or "has no image" in said) == (1, True), said


def test_what_cannot_have_buckets(
    tiny_wan: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", "--model", tiny_wan, "--output", tmp_path / "run", *QUICK]
    code, said = fails(capsys, *given, "--method", "dpo", "--pairs", tmp_path, "--set", SHAPES)
    assert (code, "data.buckets: the pairs of a set have one shape" in said) == (2, True), said
    code, said = fails(capsys, *given, "--method", "sft", "--videos", tmp_path, "--set", "data.buckets=[9x40]")
    assert (code, "data.buckets.0: write a bucket as frames x width x height" in said) == (2, True), said
    code, said = fails(capsys, *given, "--method", "sft", "--videos", clips, "--set", "data.buckets=[8x40x32]")
    assert (code, "the nearest that do are" in said) == (2, True), said
