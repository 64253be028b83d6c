"""What is done with the pixels of a clip, and the one number about it that every method logs."""

from __future__ import annotations

from torch import Tensor


def straight_through_clamp(video: Tensor) -> Tensor:
    """Clamp to [0, 1] with the gradient of the identity: a clamp would silence every saturated pixel."""
    fixed = video.detach()
    return video + (fixed.clamp(0, 1) - fixed)


def motion(video: Tensor) -> Tensor:
    """How much a clip moves: mean absolute change between frames, median over time; ``[B, F, ...]`` to ``[B]``.

    The median keeps a flicker or a cut of a few frames from passing for motion; 0 is a still picture.
    """
    if video.shape[1] < 2:
        return video.new_zeros(len(video))
    return video.diff(dim=1).abs().flatten(2).mean(2).median(1).values
