"""Regression on the base's score finds the same change as subtraction, with an interval that is never much wider."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vpo_kit.comparison import pooling, regressed
from vpo_kit.comparison.pooling import pooled
from vpo_kit.comparison.regressed import Floats, Luck
from vpo_kit.evaluation.samples import Results

PROMPTS, CANDIDATES, SEEDS = 80, 8, 3
GROUPS = list(range(PROMPTS))


def world(shared: float, seed: int, effect: float = 0.3) -> tuple[Floats, Luck]:
    """Scores after training, `shared` of whose luck is the base's, and that luck."""
    rng = np.random.default_rng(seed)
    prompts, noises = rng.normal(0, 1, PROMPTS), rng.normal(0, 1, (PROMPTS, CANDIDATES))
    own = rng.normal(0, 1, (SEEDS, PROMPTS))
    after = effect + prompts + shared * noises[:, 0] + (1 - shared**2) ** 0.5 * own
    mean = prompts + noises.mean(1)
    return after, Luck(mean, prompts + noises[:, 0] - mean)


def test_the_same_change_in_the_mean_and_a_narrower_interval_where_little_is_shared() -> None:
    found, plain, widths = [], [], []
    for seed in range(60):
        after, luck = world(0.3, seed)
        one = regressed.change(after.tolist(), luck, GROUPS)
        other = pooled((luck.mean + luck.off).tolist(), after.tolist(), GROUPS)
        found.append(one.difference)
        plain.append(other.difference)
        widths.append((one.high - one.low) / (other.high - other.low))
    assert np.mean(found) == pytest.approx(0.3, abs=0.03)
    assert np.std(found) < 0.9 * np.std(plain)
    assert np.mean(widths) < 0.9


def test_subtraction_where_all_luck_is_shared() -> None:
    after, luck = world(1.0, 0)
    one = regressed.change(after.tolist(), luck, GROUPS)
    assert one.difference == pytest.approx(0.3, abs=1e-9)
    assert luck.share(after.mean(0) - luck.mean) == pytest.approx(1.0)


def test_a_contrast_takes_out_what_of_the_difference_is_the_bases_luck() -> None:
    kept, luck = world(0.9, 1)
    lost, _ = world(0.1, 1, effect=0.0)
    plain = regressed.contrast(kept.tolist(), lost.tolist(), None, GROUPS)
    less = regressed.contrast(kept.tolist(), lost.tolist(), luck, GROUPS)
    assert plain.difference == pytest.approx(float((kept - lost).mean()))
    assert less.difference == pytest.approx(0.3, abs=0.1)
    assert less.high - less.low < plain.high - plain.low


def test_luck_is_that_of_the_videos_own_prompt() -> None:
    base = Results(name="base", prompts=["a", "b"], groups=[0, 1], files=["0", "1"], metrics={"gold": [1.0, 4.0]})
    scores = {"gold": [2.0, 0.5, 4.0, 1.5]}
    candidates = Results(name="base", prompts=["a", "b"], groups=[1, 0, 1, 0], files=list("abcd"), metrics=scores)
    luck = Luck.of(base, candidates, "gold")
    assert luck.mean.tolist() == [1.0, 3.0]
    assert luck.off.tolist() == [0.0, 1.0]
    assert Luck.of(replace(base, metrics={"gold": [1.0, 3.0]}), candidates, "gold").share(np.arange(2)) == 0


def test_more_draws_make_the_ends_surer() -> None:
    """An interval near a line that decides must not hang on which draws there were."""
    rng = np.random.default_rng(3)
    change = rng.normal(0.1, 0.5, (3, 1)) + rng.normal(0, 1, (3, len(GROUPS)))

    def uncertain(resamples: int) -> float:
        before = np.zeros(len(GROUPS)).tolist()
        ends = [pooled(before, change.tolist(), GROUPS, resamples=resamples, seed=seed).high for seed in range(8)]
        return float(np.std(ends))

    assert uncertain(50_000) < uncertain(1_000) / 2  # seven times, as the root of fifty


def test_many_draws_are_those_of_parts() -> None:
    """So memory does not grow with their number; those of the first part are as they were."""
    first, more = (
        pooling._draws(np.ones(9), np.ones(9, int), n, np.random.default_rng(0), (0.1, 2)) for n in (10_000, 25_000)
    )
    assert more.shape == (25_000,)
    assert np.array_equal(first, more[:10_000])
