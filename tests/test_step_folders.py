"""The folders of a run's steps."""

from __future__ import annotations

from pathlib import Path

from vpo_kit import step_folders


def test_they_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    others = ("step-0000008", "step-9", "step-", "step-last", "during-000003")
    for name in ("step-1000000", "step-000007", "step-999990", *others):
        (tmp_path / name).mkdir()
    found = step_folders.by_step(tmp_path)
    assert list(found) == [7, 999_990, 1_000_000]
    assert all(path == tmp_path / step_folders.name(step) for step, path in found.items())
    assert step_folders.by_step(tmp_path / "nothing") == {}
