"""Which shape an item goes into: the one that crops least of it, of those that it is long enough for."""

from __future__ import annotations

import pytest

from vpo_kit.models.buckets import best, parse
from vpo_kit.models.settings import Size

BUCKETS = [parse(words) for words in ("81x832x480", "49x480x832", "33x480x832", "17x640x640")]


def test_a_bucket_is_written_as_models_are() -> None:
    assert parse("81x832x480") == Size(frames=81, height=480, width=832)
    assert str(parse("81x832x480")) == "81 frames of 832 x 480"


@pytest.mark.parametrize(
    ("shape", "longest", "expected"),
    [
        ((1920, 1080), 100, "81x832x480"),
        ((1080, 1920), 100, "49x480x832"),  # of two with the same shape the longer one
        ((1080, 1920), 40, "33x480x832"),
        ((1920, 1080), 40, "17x640x640"),  # too short for the wide one: the square loses least of what is left
        ((700, 640), 100, "17x640x640"),
        ((0, 0), 100, "81x832x480"),  # of unknown shape
    ],
)
def test_the_best(shape: tuple[int, int], longest: int, expected: str) -> None:
    assert best(BUCKETS, shape, lambda size: size.frames <= longest) == parse(expected)


def test_nothing_fits() -> None:
    assert best(BUCKETS, (1920, 1080), lambda size: size.frames <= 9) is None
    assert best([], (1920, 1080)) is None
