"""What questions to a vision-language model will cost, as far as that is known before they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vpo_kit.errors import DataError
from vpo_kit.labelling.vlm import pictures
from vpo_kit.labelling.vlm.settings import Vlm
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.segments import Range
from vpo_kit.video import read_video

CHARACTERS = 4
"""Characters of English per token, roughly."""
PATCH = 28
"""Side in pixels of what Qwen2-VL turns into one token."""
LEAST = 85
"""OpenAI's tokens for any picture, however small."""
BESIDE = 6
"""Tokens beside each frame: its time, and where its picture begins and ends."""


@dataclass(frozen=True)
class CostEstimate:
    """What a labelling will cost if every question is answered at once."""

    pairs: int
    questions: int
    """The number of questions, two for each segment."""
    answered: int
    """Questions whose answers are already on disk."""
    tokens_in: int
    """The tokens of the questions that are left."""


def question_tokens(pair: Pair, segment: Range, settings: Vlm, characters: int, of_a_frame: int) -> int:
    """Tokens of one question: its `characters` of text and the frames of both members."""
    frames = 2 * len(pictures.frames_shown(segment, pair.fps, settings.fps))
    return characters // CHARACTERS + frames * (of_a_frame + BESIDE)


def size_tokens(settings: Vlm, height: int, width: int) -> int:
    """Tokens of a frame: as set, or by its size in pixels."""
    if settings.tokens_per_frame is not None:
        return settings.tokens_per_frame
    if settings.detail == "low":
        return LEAST
    width, height = pictures.scaled(width, height, settings.max_pixels)
    return max(LEAST, -(-width // PATCH) * -(-height // PATCH))


def frame_tokens(folder: Path, pairs: Sequence[Pair], settings: Vlm) -> int:
    """Tokens of a frame: as set, or by the size of the first video that can be read, for all of a set have one size.

    Raises `DataError` when no video can be read.
    """
    if settings.tokens_per_frame is not None or settings.detail == "low":
        return size_tokens(settings, 1, 1)
    for pair in pairs:
        try:
            height, width = read_video(folder / pair.first_file_name).size
        except DataError:
            continue
        return size_tokens(settings, height, width)
    raise DataError(f"{folder} holds no video that can be read")
