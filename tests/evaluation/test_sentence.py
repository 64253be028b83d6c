"""What a table says in a sentence is what its verdicts say."""

from __future__ import annotations

from vpo_kit.evaluation.sentence import sentence
from vpo_kit.evaluation.statistics import Paired


def change(difference: float, p: float) -> Paired:
    return Paired(
        before=0.0, after=difference, difference=difference, low=difference - 0.1, high=difference + 0.1,
        win_rate=0.5, count=9, p=p,
    )  # fmt: skip


def test_each_verdict_is_told_and_the_rest_counted() -> None:
    changes = {"vqa": change(0.5, 0.001), "warp_error": change(0.5, 0.001), "motion": change(-0.5, 0.001)}
    said = sentence("base", "run", {**changes, "gold": change(0.5, 0.4)})
    assert said == (
        "run against base: better in vqa (+0.50 [+0.40, +0.60]); worse in warp_error (+0.50 [+0.40, +0.60]); "
        "changed motion (-0.50 [-0.60, -0.40]); 1 of 4 metrics is unclear."
    )


def test_many_are_counted_and_none_is_said() -> None:
    many = {f"judge{i}": change(0.5, 0.001) for i in range(5)}
    assert "judge2 (+0.50 [+0.40, +0.60]) and 2 more." in sentence("a", "b", many)
    assert sentence("a", "b", {"vqa": change(0.1, 0.9)}) == (
        "b against a: none of 1 metrics changed by more than chance explains."
    )
