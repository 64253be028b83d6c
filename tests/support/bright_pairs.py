"""Small pair sets whose members differ in brightness, and commands that look after them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vpo_kit.cli import main
from vpo_kit.pairing.records import Pair
from vpo_kit.testing.pairs import pair_row

FRAMES, FPS = 8, 4.0
PROMPTS = ["a red circle", "a blue <b>square</b> & more", "a red circle", "a green cross", "a blue cross", "a star"]


def pair(index: int, labels: list[int] | None, clip: int | None, **changes: Any) -> Pair:
    """Pair number `index`; its scores differ by 1 in its first segment, by 2 in its second, and so on."""
    name = f"{index:06d}"
    row = {
        "prompt": PROMPTS[index % 6], "eta": 0.7 + index / 100, "seeds": (2 * index, 2 * index + 1),
        "source": f"{name}.mp4@0.00", "fps": FPS, "frames": FRAMES,
        "labels": labels, "label": clip, "labeller": None if labels is None else "reward:vqa",
        "scores": {"first": [1, 2, 3, 4], "second": [0, 0, 0, 0], "first_clip": 2, "second_clip": 0},
        "motion": {"first": [0.1, 0.2, 0.3, 0.4], "second": [0.4, 0.3, 0.2, 0.1]},
    }  # fmt: skip
    return pair_row(name, **{**row, **changes})


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], str]:
    """Exit code, the lines on standard output, and the one line on standard error."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    return int(str(caught.value.code)), shown.out.splitlines(), shown.err


def works(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    assert caught.value.code == 0, shown.err
    return shown.out


def edit(folder: Path, index: int, change: Callable[[dict[str, Any]], object]) -> None:
    """Change one line of ``metadata.jsonl`` as a text editor would."""
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    row = json.loads(lines[index])
    change(row)
    lines[index] = json.dumps(row)
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
