"""Whether a video begins and ends with the pictures that it was made from."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vpo_kit.inputs import Inputs, Still
from vpo_kit.measures import Metric

METRICS = (
    Metric(
        name="first_frame",
        group="pictures",
        direction="higher",
        unit="0 to 1",
        about="agreement of the first frame with the picture it was made from; 1 is the picture itself",
    ),
    Metric(
        name="last_frame",
        group="pictures",
        direction="higher",
        unit="0 to 1",
        about="agreement of the last frame with the picture that was given for it",
    ),
)
"""Metrics of videos that are made from pictures; no other video has them."""


def agreement(video: Tensor, items: Sequence[Inputs]) -> dict[str, list[float]]:
    """The agreement of `video` ``[B, F, 3, H, W]`` with each picture that all of the `items` have: one less the root
    mean square difference of the pixels of the frame and the picture (ours). A model that ignores its picture is as
    far from it as from any other; one that keeps it is apart by what its autoencoder loses.
    """
    given: dict[str, tuple[Tensor, list[Still | None]]] = {
        "first_frame": (video[:, 0], [item.image for item in items]),
        "last_frame": (video[:, -1], [item.last_image for item in items]),
    }
    return {name: _closeness(frames, pictures) for name, (frames, pictures) in given.items() if all(pictures)}


def _closeness(frames: Tensor, pictures: Sequence[Still | None]) -> list[float]:
    shown = [one.read(*frames.shape[-2:]).to(frames) for one in pictures if one is not None]
    apart = [(frame - picture).pow(2).mean().sqrt() for frame, picture in zip(frames, shown, strict=True)]
    return [1 - float(one) for one in apart]
