"""The tracker of two sprites against the world that it reads: accuracy, false alarms, detection, wrong words."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch

from vpo_kit.duets import tracker, world
from vpo_kit.duets.truth import DuetTruth
from vpo_kit.rewards.text_accuracy import TextAccuracy
from vpo_kit.sprites import world as one
from vpo_kit.sprites.truth import SpriteTruth
from vpo_kit.sprites.world import Array, blur

DUETS = [*world.captions("train"), *world.captions("heldout")]
COUNT = 40
SEEN = ("swap", "vanish", "teleport", "tear", "speckle", "stuck")
"""Flaws that pixels tell; the mildest of the others are seen by no closed form here."""


def soften(video: Array, rng: np.random.Generator) -> Array:
    """What a lossy autoencoder does to ``[F, 3, H, W]``: soft edges, mottling, a shift of colour."""
    grain = rng.normal(0, 0.012, (17, 1, 64, 64))
    shift = rng.uniform(-0.03, 0.03, (1, 3, 1, 1))
    return np.asarray(np.clip(blur(video.astype(np.float64), 0.8) + blur(grain, 1.0) + shift, 0, 1), np.float32)


@pytest.mark.parametrize("soft", [False, True])
def test_clean_clips_are_read_right_and_not_called_flawed(soft: bool) -> None:
    rng = np.random.default_rng(6)
    rows = []
    for i in rng.choice(len(DUETS), COUNT, replace=False):
        video = world.render(DUETS[i], rng).video
        rows.append(tracker.judge(soften(video, rng) if soft else video, DUETS[i]))
    for key in (*tracker.WORDS, "background", "text_accuracy"):
        assert np.mean([row[key] for row in rows]) >= 0.98, key
    assert np.mean([row["flawed"] for row in rows]) <= 0.05


def test_flawed_clips_are_mostly_read_right_and_the_plain_flaws_found() -> None:
    rng = np.random.default_rng(7)
    found = defaultdict(list)
    for kind in SEEN:
        for i in rng.choice(len(DUETS), 6, replace=False):
            flaw = world.DuetFlaw(kind, 5, 11, 4)
            found[kind].append(tracker.judge(world.render(DUETS[i], rng, (flaw,)).video, DUETS[i]))
    for kind, rows in found.items():
        assert np.mean([row["flawed"] for row in rows]) >= 0.8, kind
    assert np.mean([row["text_accuracy"] for rows in found.values() for row in rows]) >= 0.9


DUET = DUETS[0]
VIDEO = world.render(DUET, np.random.default_rng(8)).video


def test_wrong_words_of_either_shape_count_an_eighth_each() -> None:
    first, second = DUET.figures
    other = next(d for d in DUETS if d.first.speed != first.speed)
    wrong = world.Duet(one.Scene(**{**first.__dict__, "speed": other.first.speed}), second)
    scores = tracker.judge(VIDEO, wrong)
    assert (scores["speed_class"], scores["text_accuracy"]) == (0.5, 0.875)
    assert tracker.judge(VIDEO, world.Duet(second, first))["text_accuracy"] == 1.0  # the words are those of both


def test_a_shape_that_is_not_there_shows_none_of_its_words() -> None:
    alone = one.render(DUET.first, np.random.default_rng(9)).video
    scores = tracker.judge(alone, DUET)
    assert scores["text_accuracy"] >= 0.5
    assert scores["colour"] == 0.5
    assert scores["flawed"] == 1.0
    empty = tracker.judge(np.full((17, 3, 64, 64), 0.03, np.float32), DUET)
    assert (empty["text_accuracy"], empty["flawed"], empty["speed"]) == (0.0, 1.0, 0.0)


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a clip"):
        tracker.track(np.zeros((5, 3, 64, 64), np.float32))


def test_the_judge_of_words_reads_captions_of_both_worlds() -> None:
    assert SpriteTruth.metrics == DuetTruth.metrics
    assert not SpriteTruth().knows(DUET.caption)
    assert not DuetTruth().knows(DUET.first.caption)
    alone = one.render(DUET.first, np.random.default_rng(9)).video
    video = torch.stack([torch.from_numpy(clip) for clip in (VIDEO, alone)])
    assert TextAccuracy()(video, [DUET.caption, DUET.first.caption], fps=8).score.tolist() == [1.0, 1.0]
