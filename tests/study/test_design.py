"""Every two rows meet as often as any other two, however early people stop."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from vpo_kit.study.design import design, drawn, matches
from vpo_kit.study.subjects import StudyRows


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_each_row_plays_each_other_once(count: int) -> None:
    found = matches(count)
    assert len(found) == len({frozenset(match) for match in found}) == count * (count - 1) // 2
    each = count // 2
    assert all(
        len({row for match in found[i : i + each] for row in match}) == 2 * each for i in range(0, len(found), each)
    )


@pytest.mark.parametrize(("items", "rows"), [(7, 4), (8, 4), (9, 4), (5, 3), (12, 2), (3, 5), (20, 6)])
def test_the_design_is_balanced_at_every_point(items: int, rows: int) -> None:
    every = list(drawn(items, rows, 0))
    assert len(every) == len({(item, frozenset(match)) for item, match in every}) == items * len(matches(rows))
    for stop in range(len(every) + 1):
        met = Counter(frozenset(match) for _, match in every[:stop])
        shown = Counter(item for item, _ in every[:stop])
        for seen, all_of in ((met, {frozenset(match) for match in matches(rows)}), (shown, range(items))):
            assert max(seen[one] for one in all_of) - min(seen[one] for one in all_of) <= 1
    first = Counter(match[0] for _, match in every)
    shown = Counter(row for _, match in every for row in match)
    assert all(0.25 <= first[row] / shown[row] <= 0.75 for row in range(rows))
    assert every != list(drawn(items, rows, 1)) or items < 4


def test_a_set_shows_each_row_with_its_own_video() -> None:
    rows = StudyRows(
        names=["base", "dense"],
        prompts=["a", "b", "c"],
        videos={name: [Path(f"{name}/{i}.mp4") for i in range(3)] for name in ("base", "dense")},
    )
    found = design("study", rows, 2, 0)
    assert len(found.pairs) == 2
    for pair in found.pairs:
        one, other = found.clips[pair.first], found.clips[pair.second]
        assert {one.model, other.model} == {"base", "dense"}
        assert one.prompt == other.prompt
        assert {one.path.stem, other.path.stem} == {str("abc".index(one.prompt))}
