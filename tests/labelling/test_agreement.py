"""Krippendorff's alpha against its published example, two extremes, and chance."""

from __future__ import annotations

import random

import pytest

from vpo_kit.labelling.agreement import alpha

EXAMPLE = """
* * * * * 3 4 1 2 1 1 3 3 * 3
1 * 2 1 3 3 4 3 * * * * * * *
* * 2 1 3 4 4 * 2 1 1 3 3 * 4
"""
"""Three coders of fifteen units (Krippendorff, 2011, and Wikipedia after him)."""


def test_the_published_example() -> None:
    rows = [line.split() for line in EXAMPLE.strip().splitlines()]
    given = [(unit, int(value)) for row in rows for unit, value in enumerate(row) if value != "*"]
    assert alpha(given) == pytest.approx(0.811, abs=5e-4)


def test_its_ends() -> None:
    assert alpha([(i, i % 3 - 1) for i in range(9) for _ in range(3)]) == pytest.approx(1)
    assert alpha([(0, 1), (1, -1)]) is None  # nobody shares an item
    assert alpha([(0, 1), (0, 1), (1, 1), (1, 1)]) is None  # one answer throughout says nothing
    opposed = alpha([(i, sign) for i in range(50) for sign in (1, -1)])
    assert opposed is not None
    assert opposed < 0
    drawn = random.Random(0)
    guessed = alpha([(i, drawn.choice((-1, 0, 1))) for i in range(3000) for _ in range(2)])
    assert guessed == pytest.approx(0, abs=0.05)
