"""The judge of words: right and wrong captions of clips whose truth is known, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vpo_kit import config
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.rewards.base import score_segments
from vpo_kit.rewards.text_accuracy import TextAccuracy
from vpo_kit.sprites import world
from vpo_kit.training import recipe

SCENES = world.scenes(held_out=True)[::20]


def clips() -> Tensor:
    return torch.stack([torch.from_numpy(world.render(s, np.random.default_rng(2)).video) for s in SCENES])


def test_a_clips_own_caption_is_all_right_and_others_are_not() -> None:
    captions = [scene.caption for scene in SCENES]
    judge = TextAccuracy()
    assert judge(clips(), captions, fps=8).score.tolist() == [1.0] * len(SCENES)
    others = [*captions[1:], captions[0]]
    words = [("colour", "shape", "motion", "speed")] * len(SCENES)
    expected = [
        sum(getattr(a, word) == getattr(b, word) for word in names) / 4
        for a, b, names in zip(SCENES, [world.parse(text) for text in others], words, strict=True)
    ]
    assert judge(clips(), others, fps=8).score.tolist() == expected
    assert min(expected) < 0.6


def test_segments_are_judged_as_clips() -> None:
    found = score_segments(TextAccuracy(), clips()[:1], [SCENES[0].caption], fps=8, segments=[(0, 9), (9, 17)])
    assert found.segments is not None
    assert found.segments.shape == (1, 2)
    with pytest.raises(DataError, match="cannot read a clip: expected a clip"):
        TextAccuracy()(clips()[:1, :5], [SCENES[0].caption], fps=8)


def test_what_it_cannot_judge_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match="captions of the embedded worlds alone, not 'a cat'"):
        TextAccuracy()(clips()[:1], ["a cat"], fps=8)
    with pytest.raises(DataError, match="by its caption, and there is none"):
        TextAccuracy()(clips()[:1], None, fps=8)
    with pytest.raises(ConfigError, match="held-out"):
        recipe.check(config.build({"reward": {"name": "text"}}))
