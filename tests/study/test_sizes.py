"""How many raters a difference takes, against the textbook's case and against draws."""

from __future__ import annotations

import numpy as np
import pytest

from vpo_kit.study.sizes import Noise, effective, least, raters


def test_without_ties_and_agreement_it_is_the_sign_test() -> None:
    """A coin of 60% at 5% and 80% power: 2.80^2 / (4 * 0.1^2) = 197 throws."""
    assert raters(0.1, 1, Noise(0, 0)) == 197
    assert raters(0.1, 197, Noise(0, 0)) == 1
    assert raters(0.1, 20, Noise(0, 0)) == 10
    assert raters(-0.1, 20, Noise(0, 0)) == 10


def test_what_pairs_alone_can_mend_no_rater_can() -> None:
    assert raters(0.1, 50, Noise(0, 1)) is None
    assert raters(0.1, 200, Noise(0, 1)) == 1
    assert raters(0.05, 40, Noise(0.25, 0.4)) is None


@pytest.mark.parametrize("noise", [Noise(0, 0), Noise(0.3, 0.2), Noise()])
def test_both_ways_of_asking_agree(noise: Noise) -> None:
    count = raters(0.1, 150, noise)
    assert count is not None
    assert least(150, count, noise) <= 0.1 + 1e-9
    assert count == 1 or least(150, count - 1, noise) > 0.1


def test_rows_that_meet_others_too_tell_more() -> None:
    assert effective(100, 2) == 100
    assert effective(600, 4) == 100 * 2


def test_four_of_five_studies_find_it() -> None:
    """Simulated: votes of one pair share its own leaning, so that they correlate by alpha."""
    rng, pairs, win, alpha = np.random.default_rng(0), 150, 0.62, 0.3
    count = raters(win - 0.5, pairs, Noise(0, alpha))
    assert count is not None
    spread = 1 / alpha - 1
    own = rng.beta(win * spread, (1 - win) * spread, (2000, pairs, 1))
    shares = (rng.random((2000, pairs, count)) < own).mean((1, 2))
    error = np.sqrt(0.25 * (1 + (count - 1) * alpha) / (pairs * count))
    assert 0.75 < (shares - 0.5 > 1.96 * error).mean() < 0.92
