"""Which checkpoints stay, and which is the newest: by the number of their step."""

from __future__ import annotations

from pathlib import Path

import torch

from vpo_kit.training import checkpoints
from vpo_kit.training.checkpoints import Checkpoint


def save(folder: Path, step: int, keep: int = 9) -> None:
    """A checkpoint of one number, the step itself."""
    lora = {"lora": torch.tensor(float(step))}
    state = Checkpoint(step=step, policy=lora, reference=None, method={}, optimiser={}, best={})
    checkpoints.save(folder, state, keep)


def damage(folder: Path, step: int) -> None:
    (folder / f"step-{step:06d}" / "lora.safetensors").write_bytes(b"")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest(folder: Path) -> int:
    found = checkpoints.latest(folder)
    assert found is not None
    return found[0].step


def test_what_a_run_has_just_written_outlives_what_was_passed_over(tmp_path: Path) -> None:
    """Damaged checkpoints of later steps would else be the newest, and the only ones that stay."""
    for step in (10, 20, 30):
        save(tmp_path, step)
    damage(tmp_path, 20)
    damage(tmp_path, 30)
    assert newest(tmp_path) == 10
    save(tmp_path, 13, keep=1)
    assert names(tmp_path) == ["step-000013"]


def test_the_order_is_that_of_numbers(tmp_path: Path) -> None:
    for step in (999_990, 1_000_000):
        save(tmp_path, step)
    assert newest(tmp_path) == 1_000_000
    save(tmp_path, 1_000_010, keep=2)
    assert names(tmp_path) == ["step-1000000", "step-1000010"]


def test_what_a_user_keeps_beside_them_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (tmp_path / "step-000010-before-the-crash").mkdir()
    (tmp_path / "step-20").mkdir()
    save(tmp_path, 15, keep=1)
    assert names(tmp_path) == ["step-000010-before-the-crash", "step-000015", "step-20"]
    assert newest(tmp_path) == 15
