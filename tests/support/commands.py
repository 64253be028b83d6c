"""`vpo` commands in this process: what they end with and what they say."""

from __future__ import annotations

import pytest

from vpo_kit.cli import main


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run `vpo` and return its exit code and its one line."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert caught.value.code in (1, 2)
    return int(caught.value.code), shown


def main_ok(arguments: list[object]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 0
