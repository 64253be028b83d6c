"""Advice is the same whether its rehearsals share what is known or not, and it gives up nothing too soon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vpo_kit.library import plan as command
from vpo_kit.planning import advice
from vpo_kit.planning.advice import HEADROOM, advise
from vpo_kit.planning.estimate import Estimate, Subject
from vpo_kit.planning.rehearsal import rehearse
from vpo_kit.planning.repeats import Known

SMALL = ["sampling.frames=5", "sampling.height=32", "sampling.width=32", "sampling.steps=1", "sampling.batch_size=4"]


def subject(model: Path, method: str, *sets: str) -> Subject:
    recipe = command._recipe({"model": str(model), "method": method}, None, [*SMALL, *sets])
    return command.subject_of(recipe, 1)


@pytest.mark.parametrize(
    ("method", "sets"),
    [
        ("dpo", ["evaluation.num_prompts=0", "batch_size=4"]),
        pytest.param("online", ["evaluation.num_prompts=2", "method.num_candidates=4"], marks=pytest.mark.slow),
        pytest.param("instruct", ["evaluation.num_prompts=2", "batch_size=2"], marks=pytest.mark.slow),
    ],
)
def test_shared_counts_change_no_advice(
    method: str, sets: list[str], tiny_wan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing fits the memory asked for, with counts shared and made anew."""
    planned, known = subject(tiny_wan, method, *sets), Known()
    alone, estimate = rehearse(planned), rehearse(planned, known)
    assert (estimate.phases, estimate.ops) == (alone.phases, alone.ops)
    found = advise(planned, estimate, 1, most=3, known=known)
    monkeypatch.setattr(advice, "rehearse", lambda changed, _: rehearse(changed))
    assert len(found) >= 2
    assert advise(planned, alone, 1, most=3) == found


def test_what_did_not_help_is_tried_again(tiny_wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of 40 and 20 bytes a part; a graph of 1000 or 10 that no dtype changes: only both together fit 40."""
    planned = subject(tiny_wan, "dpo", "batch_size=2")
    tried = []

    def rehearsed(changed: Subject, known: Known | None = None) -> Estimate:
        run = changed.run
        tried.append((run.dtype, run.gradient_checkpointing))
        parts = {"weights": 40 if run.dtype == "float32" else 20, "activations": 10 if tried[-1][1] else 1000}
        return replace(whole, phases={"step": parts})

    whole = rehearse(planned)
    monkeypatch.setattr(advice, "rehearse", rehearsed)
    found = advise(planned, rehearsed(planned), 40)
    assert [one.setting for one in found] == ["gradient_checkpointing=true", "dtype=bfloat16"]
    assert found[-1].peak == 30 <= HEADROOM * 40
    assert tried.count(("bfloat16", False)) == 1
