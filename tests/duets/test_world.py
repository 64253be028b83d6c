"""The world of two sprites: its captions and split, what is drawn, and its flaws."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vpo_kit.duets import world
from vpo_kit.rewards import degrade
from vpo_kit.sprites.world import BACKGROUNDS, COLOURS, FLAW_RATE, SPEEDS, Scene

SPLITS = ("train", "validation", "heldout")
DUET = world.Duet(
    Scene(colour="red", shape="circle", motion="moving right", speed="quickly", background="navy"),
    Scene(colour="yellow", shape="square", motion="moving up", speed="slowly", background="navy"),
)
CAPTION = "a red circle moving right quickly and a yellow square moving up slowly on a navy background"


def test_a_caption_says_what_is_drawn_and_is_read_back() -> None:
    assert DUET.caption == CAPTION
    assert world.parse(CAPTION.upper()) == DUET
    for split in SPLITS:
        assert all(world.parse(duet.caption) == duet for duet in world.captions(split))
    for wrong in (
        "a red circle moving right quickly on a navy background",
        CAPTION.replace("yellow", "red"),
        CAPTION.replace("square", "cat"),
        CAPTION + " and a red circle moving up slowly",
        "",
    ):
        with pytest.raises(ValueError, match="not a caption of the world of two"):
            world.parse(wrong)


def test_the_split_is_by_combination_and_even() -> None:
    chosen = {split: world.captions(split) for split in SPLITS}
    assert {split: len(duets) for split, duets in chosen.items()} == {"train": 688, "validation": 128, "heldout": 144}
    texts = [duet.caption for duets in chosen.values() for duet in duets]
    assert len({*texts}) == len(texts)
    for split, duets in chosen.items():
        assert {duet.split for duet in duets} == {split}
        for place, other in ((0, 1), (1, 0)):
            own = [duet.figures[place] for duet in duets]
            speeds = Counter((one.speed, duet.figures[other].speed) for one, duet in zip(own, duets, strict=True))
            assert set(speeds) == set(itertools.product(SPEEDS, SPEEDS))
            assert min(speeds.values()) >= 0.8 * len(duets) / 4
            assert min(Counter(one.background for one in own).values()) >= 0.9 * len(duets) / len(BACKGROUNDS)
            assert min(Counter(one.colour for one in own).values()) >= 0.6 * len(duets) / len(COLOURS)


def test_training_clips_repeat_and_hold_no_held_out_combination() -> None:
    first, second = (list(world.training_clips(3, seed=1)) for _ in range(2))
    assert all(np.array_equal(a.video, b.video) for a, b in zip(first, second, strict=True))
    clips = list(world.training_clips(60, seed=2))
    for clip in clips:
        assert (clip.video.shape, clip.video.dtype) == ((17, 3, 64, 64), np.float32)
        assert 0 <= clip.video.min() < clip.video.max() <= 1
        assert not any(figure.held_out for figure in clip.duet.figures)
        assert clip.duet.first.colour != clip.duet.second.colour
        assert all(1 <= flaw.start < flaw.end <= 17 for flaw in clip.flaws)


@pytest.mark.parametrize(("kind", "longest"), [("swap", 8), ("merge", 9), ("tear", 9)])
def test_a_swap_is_of_less_than_half_a_clip(kind: str, longest: int) -> None:
    rng = np.random.default_rng(1)
    flaws = [world.draw_flaw(kind, rng) for _ in range(300)]
    assert {flaw.end - flaw.start for flaw in flaws} == set(range(4, longest + 1))
    assert {flaw.severity for flaw in flaws} == set(world.SEVERITIES)
    assert (min(flaw.start for flaw in flaws), max(flaw.end for flaw in flaws)) == (1, 17)


def test_quick_clips_are_flawed_more_often() -> None:
    rng = np.random.default_rng(3)
    for speeds in itertools.combinations_with_replacement(SPEEDS, 2):
        duet = next(d for d in world.captions("train") if sorted(f.speed for f in d.figures) == sorted(speeds))
        share = np.mean([bool(world.draw_flaws(duet, rng)) for _ in range(1500)])
        assert share == pytest.approx(np.mean([FLAW_RATE[speed] for speed in speeds]), abs=0.05)


def test_flaws_are_none_that_the_judges_of_training_were_taught() -> None:
    assert set(world.FLAWS) - set(world.OWN_FLAWS) == set(degrade.UNTAUGHT)
    assert not set(degrade.UNTAUGHT) & set(degrade.DEGRADATIONS)


@pytest.mark.parametrize("kind", world.FLAWS)
def test_a_flaw_changes_its_window_alone(kind: str) -> None:
    clean = world.render(DUET, np.random.default_rng(4)).video
    flawed = world.render(DUET, np.random.default_rng(4), (world.DuetFlaw(kind, 5, 12, 4),)).video
    changed = abs(flawed - clean).max((1, 2, 3)) > 1e-3
    assert changed[5:12].sum() >= 4  # what tears below a line may tear below all there is
    assert not changed[:5].any()
    assert not changed[12:].any()


def test_swapped_shapes_have_each_others_colour() -> None:
    seed = 4
    both = [world.Duet(DUET.first, DUET.second), world.Duet(*_recoloured())]
    right, wrong = (world.render(duet, np.random.default_rng(seed)).video for duet in both)
    swapped = world.render(DUET, np.random.default_rng(seed), (world.DuetFlaw("swap", 3, 9, 2),)).video
    np.testing.assert_array_equal(swapped[3:9], wrong[3:9])
    np.testing.assert_array_equal(swapped[9:], right[9:])


def _recoloured() -> tuple[Scene, Scene]:
    return replace(DUET.first, colour=DUET.second.colour), replace(DUET.second, colour=DUET.first.colour)


def test_the_first_is_before_the_second() -> None:
    """Where both are, the pixel is the first one's."""
    parts = world._Parts.drawn(DUET, np.random.default_rng(0), [])
    middle = np.full((17, 2), 32.0)
    covered = world._draw(
        world._Parts(**{**parts.__dict__, "paths": (middle, middle)}), np.arange(17, dtype=np.float64)
    )
    assert covered[:, :, 32, 32].numpy() == pytest.approx(np.tile(COLOURS["red"], (17, 1)), abs=1e-6)


def test_shapes_are_apart_for_most_of_a_clip() -> None:
    rng = np.random.default_rng(5)
    apart = []
    for duet in world.captions("heldout")[::6]:
        first, second = world.draw_paths(duet, (8.5, 8.5), rng)
        apart.append((np.linalg.norm(first - second, axis=1) > 1.15 * 17 + 1).sum())
    assert np.mean(np.array(apart) >= world.LEAST_APART) >= 0.95
