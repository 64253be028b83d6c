"""What people said in studies, joined to results: two studies beside each other, and nothing dropped without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.said import say
from vpo_kit.errors import DataError
from vpo_kit.evaluation import people


def test_one_study_after_the_other(tmp_path: Path) -> None:
    """Rows of another study stay, those of the same one are those of its last end, and what is replaced is said."""
    first = {"dense": {"quality": say(), "text": say()}, "sft": {"quality": say()}}
    assert people.join(tmp_path, "first", first) == []
    assert people.read(tmp_path) == first
    second = {"online": {"quality": say("second")}, "sft": {"quality": say("second")}}
    (line,) = people.join(tmp_path, "second", second)
    assert line.endswith("another study said: sft, quality")
    assert people.read(tmp_path) == {**second, "dense": first["dense"]}
    shorter = {"dense": {"quality": say(win_rate=0.6)}}  # a rater was left out, who alone had judged the text
    assert people.join(tmp_path, "first", shorter) == []
    assert people.read(tmp_path) == {**second, **shorter}


def test_a_row_that_nobody_judged_has_none() -> None:
    said = {"dense": {"quality": say(), "text": say(alpha=None, low=0.45)}, "gone": {"motion": say()}}
    assert people.cells(said, ["dense", "sft"]) == [
        ["dense", "quality", "62% [55%, 70%]*", "+0.49 [+0.20, +0.85]", "90", "4", "0.41"],
        ["dense", "text", "62% [45%, 70%]", "+0.49 [+0.20, +0.85]", "90", "4", "not known"],
        ["sft", "quality", "none", "", "0", "0", ""],
        ["sft", "text", "none", "", "0", "0", ""],
    ]
    (line,) = people.strangers(said, ["dense", "sft"])
    assert "gone, which is no row here" in line
    assert people.strangers(said, ["dense", "gone"]) == []
    assert people.cells({}, ["dense"]) == people.markdown({}, ["dense"]) == people.latex({}, ["dense"]) == []


def test_names_are_escaped() -> None:
    said = {"a|b_c": {"x_y": say()}}
    assert r"| a\|b\_c | x\_y | 62% [55%, 70%]* |" in "\n".join(people.markdown(said, said))
    assert (
        r"a\textbar{}b\_c & x\_y & 62\% [55\%, 70\%]* & $+$0.49 [$+$0.20, $+$0.85] & 90 & 4 & 0.41 \\"
        in people.latex(said, said)
    )


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert people.read(tmp_path) == {}
    (tmp_path / people.FILE).write_text('{"dense": {"quality": {"win_rate": 1}}}')
    with pytest.raises(DataError, match=r"people\.json cannot be read: move it away"):
        people.read(tmp_path)
