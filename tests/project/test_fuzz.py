"""Damaged inputs of every kind end in a result or in one line, and soon; `benchmarks.reliability` runs thousands."""

from __future__ import annotations

import random

import pytest

from benchmarks.reliability.fuzz import fuzz
from benchmarks.reliability.mutations import damage, damage_json
from benchmarks.reliability.targets import TARGETS

# the others cost a hundredth of these; each case is in milliseconds
SLOW = {"lora_file": 12, "model_folder": 12, "clip_listing": 12, "video_file": 12, "pair_set": 40, "pair_tools": 25,
        "foreign_set": 25, "changed_data": 40}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_no_traceback_and_no_endless_loop(target: str) -> None:
    outcome = fuzz(target, SLOW.get(target, 80), seed=1)
    assert not outcome.findings, outcome.findings[0].what
    assert outcome.cases == SLOW.get(target, 80)


def test_findings_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that fails, and one that never ends, are reported with their case."""

    def bad(_: object) -> object:
        def read(stage: object) -> None:
            if not stage.sound:  # type: ignore[attr-defined]
                raise KeyError("x")

        return read

    def endless(_: object) -> object:
        def read(stage: object) -> None:
            while not stage.sound:  # type: ignore[attr-defined]
                pass

        return read

    monkeypatch.setattr("benchmarks.reliability.fuzz.LIMIT_S", 0.05)
    monkeypatch.setitem(TARGETS, "bad", bad)  # type: ignore[arg-type]
    monkeypatch.setitem(TARGETS, "endless", endless)  # type: ignore[arg-type]
    assert "KeyError: 'x'" in fuzz("bad", 1, 0).findings[0].what
    assert "not done after 0.05 s" in fuzz("endless", 1, 0).findings[0].what


@pytest.mark.parametrize("change", [damage, damage_json])
def test_the_same_seed_is_the_same_damage(change: object) -> None:
    seed = b'{"a": [1, 2, {"b": "c"}], "d": 0.5}'
    made = [[change(seed, random.Random(i)) for i in range(50)] for _ in range(2)]  # type: ignore[operator]
    assert made[0] == made[1]
    assert len(set(made[0])) > 40
    assert sum(case != seed for case in made[0]) > 45
