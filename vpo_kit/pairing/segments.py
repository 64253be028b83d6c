"""Segments of time: where a clip is cut, and which segment's label a latent frame takes. No torch here.

A segment is a half-open range of pixel frames; a label is +1 (first), -1 (second) or 0 (tie).
"""

from __future__ import annotations

from collections.abc import Sequence

Range = tuple[int, int]


def default_seconds(frames: int, fps: float) -> float:
    """One second as in DenseDPO, or a quarter of a clip of less than four."""
    return min(1.0, frames / fps / 4)


def cut(frames: int, fps: float, seconds: float) -> list[Range]:
    """`frames` pixel frames in segments of `seconds`; a rest of less than half a segment belongs to the last one.

    DenseDPO has ``ceil(T / s)`` segments. Clips of causal autoencoders have ``4 k + 1`` frames, so that would often
    leave a segment of a single frame, in which nothing temporal can be judged.
    """
    length = max(1, round(seconds * fps))
    starts = list(range(0, frames, length))
    if len(starts) > 1 and frames - starts[-1] < length / 2:
        starts.pop()
    return list(zip(starts, [*starts[1:], frames], strict=True))


def latent_labels(labels: Sequence[int], segments: Sequence[Range], frame_map: Sequence[Range]) -> list[int]:
    """A label for each latent frame: that of the segment that holds most of its pixel frames, a tie on a draw.

    `frame_map` is `VideoModel.frame_map`. Equal labels do not draw: two segments of one label count together.
    """
    found = []
    for low, high in frame_map:
        votes = {-1: 0, 0: 0, 1: 0}
        for (start, end), label in zip(segments, labels, strict=True):
            votes[label] += max(0, min(end, high) - max(start, low))
        best = max(votes.values())
        winners = [label for label, count in votes.items() if count == best]
        found.append(winners[0] if len(winners) == 1 else 0)
    return found


def vote(labels: Sequence[int]) -> int:
    """The majority of the segments that are not ties; a draw is a tie (DenseDPO)."""
    total = sum(labels)
    return (total > 0) - (total < 0)
