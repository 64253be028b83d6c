"""A name that cannot be imported, in one line that says what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vpo_kit.errors import ConfigError
from vpo_kit.registry import REWARDS

HINT = r"it lies in this folder, so let Python look here: export PYTHONPATH=\$PWD"


@pytest.mark.parametrize("name", ["./my_judge.py:Judge", "../judge:Judge", ":Judge", ".judge:Judge", "judge:"])
def test_a_path_is_no_module(name: str) -> None:
    with pytest.raises(ConfigError, match=r"reward '.*' is no package\.module:Class"):
        REWARDS.load(name)


def test_a_module_beside_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `vpo` script does not look where it is called; a missing import of the module's own is no matter of that."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    with pytest.raises(ConfigError, match=r"No module named 'beside_me'$"):
        REWARDS.load("beside_me:Warm")
    (tmp_path / "beside_me.py").write_text("import not_installed_at_all\n")
    with pytest.raises(ConfigError, match=rf"No module named 'beside_me': {HINT}$"):
        REWARDS.load("beside_me:Warm")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"No module named 'not_installed_at_all'$"):
        REWARDS.load("beside_me:Warm")
