"""What `vpo runs` and `vpo watch` say of run folders, finished, broken off, stopped and still at work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from vpo_kit import config
from vpo_kit.cli import main, watch
from vpo_kit.files import LOCK
from vpo_kit.training.run_seen import look


def make(path: Path, steps: int, **summary: Any) -> Path:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(config.dump(config.build({"method": "grpo", "steps": 4})))
    rows = [{"step": i + 1, "loss": 0.5, "reward_mean": -1.0 + i / 10} for i in range(steps)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 9')
    if summary:
        (path / "summary.json").write_text(json.dumps(summary))
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    with pytest.raises(SystemExit) as end:
        main([str(one) for one in arguments])
    assert end.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    done: dict[str, Any] = {"reward": "vqa", "changes": {"vqa": {"difference": 0.125}}, "health": {"check": None}}
    make(tmp_path / "a", 4, **done)
    make(tmp_path / "b", 2)
    make(tmp_path / "board" / "c", 1, **{**done, "changes": {}, "health": {"check": "margin_runaway"}})
    return tmp_path


def test_each_state(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, *lines = (line.split(None, 5) for line in shown(capsys, "runs", folder))
    assert head[:3] == ["run", "method", "step"]
    assert lines == [
        ["a", "grpo", "4/4", "-0.700", "+0.125", "done"],
        ["b", "grpo", "2/4", "-0.900", "broken", "off (--resume goes on)"],
        ["board/c", "grpo", "1/4", "-1.000", "stopped", "by margin_runaway"],
    ]


def test_a_tracker_s_file_is_no_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """wandb writes the settings of a run once more, each with a value in it."""
    other = folder / "a" / "tracking" / "wandb" / "files" / "config.yaml"
    other.parent.mkdir(parents=True)
    other.write_text("steps: {value: 40}\nmethod: {value: {name: grpo}}\n")
    assert [line.split()[0] for line in shown(capsys, "runs", folder)] == ["run", "a", "b", "board/c"]


def test_another_user_s_run_is_looked_at_for_reading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock may be read and not written."""
    (folder / "b" / LOCK).write_bytes(b"")
    read = Path.open

    def refused(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if path.name == LOCK and mode != "rb":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setattr("os.open", lambda *_, **__: pytest.fail("written"))
    assert look(folder / "b").state == "broken off (--resume goes on)"


def test_one_that_is_at_work(folder: Path) -> None:
    assert look(folder / "b").state == "broken off (--resume goes on)"
    with FileLock(folder / "b" / LOCK):
        assert look(folder / "b").state == "running"
    assert look(folder / "b").state == "broken off (--resume goes on)"


def test_a_run_is_followed_to_its_end(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "ALIVE_S", -1.0)  # look whether it lives at each turn
    lock = FileLock(folder / "b" / LOCK)

    def go_on(seconds: float) -> None:
        """While the watcher waits, the run takes its third step and is killed."""
        assert seconds == watch.POLL_S
        make(folder / "next", 3)
        (folder / "next" / "metrics.jsonl").replace(folder / "b" / "metrics.jsonl")
        lock.release()

    monkeypatch.setattr(watch.time, "sleep", go_on)
    with lock:
        lines = shown(capsys, "watch", folder / "b")
    assert lines[0].endswith("grpo, 4 steps, running")
    assert [line for line in lines if line.startswith("step")] == [
        f"step {i}/4  reward {-1.1 + i / 10:.3g}  loss 0.5" for i in (1, 2, 3)
    ]
    assert lines[-1].endswith("broken off (--resume goes on) after step 3 of 4")


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["runs", str(tmp_path)], ["watch", str(tmp_path)]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 1
        assert "holds no run" in capsys.readouterr().err


def test_no_torch() -> None:
    code = "import sys, vpo_kit.training.run_seen; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
