"""`vpo doctor`: what is broken has a line and an exit code, what is missing by choice has neither; and completion."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vpo_kit.cli import main
from vpo_kit.library import doctor


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(["doctor", *arguments])
    return int(str(end.value.code)), capsys.readouterr().out


def test_what_is_whole_is_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE", 0.0)
    monkeypatch.setenv("HF_TOKEN", "hf_a_secret")
    code, shown = run(capsys)
    assert code == 0, shown
    names = {line[:20].strip() for line in shown.splitlines()}
    assert {
        "vpo-kit",
        *doctor.CORE,
        "devices",
        "codec",
        "extra server",
        "disk, runs",
        "disk, Hub's cache",
        "Hub",
    } <= names
    assert "a clip was written and read" in shown
    assert "a token is set" in shown
    assert "hf_a_secret" not in shown


def test_what_is_broken_has_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> str:
        raise RuntimeError("no encoder\nfor this")

    monkeypatch.setattr(doctor, "CORE", ("torch", "a-package-that-is-not-there"))
    monkeypatch.setattr(doctor, "LITTLE", float("inf"))
    monkeypatch.setattr(doctor, "_codec", fails)
    code, shown = run(capsys)
    broken = [line.split(": ")[1] for line in shown.splitlines() if line.startswith("broken: ")]
    assert (code, broken) == (1, ["a-package-that-is-not-there", "codec", "disk, runs", "disk, Hub's cache"])
    assert "broken: codec: no encoder for this" in shown
    assert "pip install a-package-that-is-not-there" in shown


def test_an_extra_that_is_not_there_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["nothing-like-it>=1 ; extra == 'odd'", "numpy>=1"])
    (found,) = doctor._extras()
    assert (found.name, found.ok) == ("extra odd", True)
    assert "pip install 'vpo-kit[odd]'" in found.seen


@pytest.mark.slow
def test_a_run_of_two_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert "the embedded model was trained and its LoRA written" in run(capsys, "--run")[1]


def test_a_shell_completes_commands_without_torch() -> None:
    """As the script that `vpo --install-completion` leaves in bash asks."""
    code = (
        "import sys\nsys.argv = ['vpo']\nfrom vpo_kit.cli import main\ntry: main()\n"
        "finally: assert 'torch' not in sys.modules\n"
    )
    asked = {"_VPO_COMPLETE": "complete_bash", "COMP_WORDS": "vpo re", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["rewards", "reward"], done.stderr
