"""What is done with the pixels of a clip, and the one number about it that every method logs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vpo_kit.errors import DataError


def straight_through_clamp(video: Tensor) -> Tensor:
    """Clamp to [0, 1] with the gradient of the identity: a clamp would silence every saturated pixel."""
    fixed = video.detach()
    return video + (fixed.clamp(0, 1) - fixed)


def check_finite(video: Tensor, prompts: Sequence[str]) -> None:
    """Raises `DataError` where a video of `video` ``[B, F, 3, H, W]`` is not finite: as a file it would be black, and
    what a reward says of it would be the reward's fault.
    """
    for prompt, one in zip(prompts, video, strict=True):
        if not one.isfinite().all():
            raise DataError(
                f"the video of the prompt {prompt!r} is not finite: the model, or its LoRA, gives no numbers: try "
                "another dtype or checkpoint"
            )


def motion(video: Tensor) -> Tensor:
    """How much a clip moves: mean absolute change between frames, median over time; ``[B, F, ...]`` to ``[B]``.

    The median keeps a flicker or a cut of a few frames from passing for motion; 0 is a still picture.
    """
    if video.shape[1] < 2:
        return video.new_zeros(len(video))
    return video.diff(dim=1).abs().flatten(2).mean(2).median(1).values
