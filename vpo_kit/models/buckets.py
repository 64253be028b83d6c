"""Shapes for items of several: each goes into the bucket that fits it best, and a batch comes from one bucket."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vpo_kit.inputs import cropped
from vpo_kit.models.settings import Size


def best(buckets: Sequence[Size], shape: tuple[int, int], fits: Callable[[Size], bool] = lambda _: True) -> Size | None:
    """The bucket that crops least of pictures of `shape`, their width and height, among those that `fits` takes; of
    equals the one with most frames. Where the shape is not known (zeros), the one with most frames.
    """
    usable = [size for size in buckets if fits(size)]
    lost = {size: cropped(shape, size.height, size.width) if all(shape) else 0.0 for size in usable}
    return min(usable, key=lambda size: (round(lost[size], 6), -size.frames), default=None)


def parse(words: str) -> Size:
    """A bucket as recipes write it: ``81x832x480`` is 81 frames, 832 pixels wide and 480 high."""
    frames, width, height = (int(part) for part in words.split("x"))
    return Size(frames, height, width)
