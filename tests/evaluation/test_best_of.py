"""The base's best of n: its expectation in closed form, and what a gain equals."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from vpo_kit.evaluation import best_of
from vpo_kit.evaluation.samples import Results


def candidates(values: list[list[float]], **more: list[list[float]]) -> Results:
    """``G`` prompts with ``N`` candidates each."""
    groups = [i for i, row in enumerate(values) for _ in row]
    metrics = {name: [float(v) for row in rows for v in row] for name, rows in {"gold": values, **more}.items()}
    files = [f"{i:03d}-{k}.mp4" for i, row in enumerate(values) for k in range(len(row))]
    return Results(
        name="base", prompts=[f"prompt {i}" for i in range(len(values))], groups=groups, files=files, metrics=metrics
    )


def test_the_expectation_is_that_over_all_choices() -> None:
    scores, values = [3.0, 1.0, 5.0, 2.0, 4.0], [10.0, 20.0, 0.0, 40.0, 30.0]
    found = best_of.curve(candidates([values]), scores, "gold")[0]
    for n in range(1, 6):
        picks = [max(choice, key=lambda i: scores[i]) for choice in itertools.combinations(range(5), n)]
        assert found[n - 1] == pytest.approx(np.mean([values[i] for i in picks]))
    assert found[0] == pytest.approx(np.mean(values))
    assert found[-1] == 0.0  # the reward likes the worst one best


def test_weights_are_a_distribution() -> None:
    for count, n in ((8, 1), (8, 3), (8, 8)):
        weights = best_of.weights(count, n)
        assert weights.sum() == pytest.approx(1)
        assert (np.diff(weights) <= 1e-12).all()
    with pytest.raises(ValueError, match="best of 9 of 8"):
        best_of.weights(8, 9)
    assert best_of.counts(8) == [2, 4, 8]
    assert best_of.counts(6) == [2, 4, 6]
    assert best_of.counts(1) == []


def test_a_gain_equals_the_n_at_which_the_curve_reaches_it() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 8))
    base = candidates(values.tolist())
    expected = best_of.curve(base, values.ravel().tolist(), "gold")  # a judge that is always right
    for n in (1, 2, 4, 8):
        found = best_of.equal(expected, expected[:, n - 1][None])
        assert found.n == pytest.approx(n, rel=1e-6)
        assert found.low <= n <= found.high
    between = best_of.equal(expected, (expected[:, 1] + expected[:, 2])[None] / 2)
    assert 2 < between.n < 3
    assert best_of.equal(expected, expected[:, :1].T - 1).n == 0
    assert best_of.equal(expected, expected[:, 7:].T + 1).facts() == {"n": "more", "low": "more", "high": "more"}
    assert str(best_of.equal(expected, expected[:, :1].T - 1)) == "<1 [<1, <1]"


def test_the_interval_of_a_gain_covers() -> None:
    """A model as good as the base's best of 3: its interval holds 3 in about 95% of draws of prompts and seeds."""
    rng, inside, narrow = np.random.default_rng(1), 0, 0
    for trial in range(60):
        values = rng.normal(size=(60, 8))
        expected = best_of.curve(candidates(values.tolist()), values.ravel().tolist(), "gold")
        truth = 0.846  # the mean of the largest of three standard normal numbers
        seeds = truth + 0.05 * rng.normal(size=(3, 1)) + rng.normal(size=(3, 60))
        found = best_of.equal(expected, seeds, resamples=400, seed=trial)
        inside += found.low <= 3 <= found.high
        narrow += found.low > 1 and found.high < 8
    assert inside >= 53
    assert narrow >= 53  # one without an end would hold it always


def test_a_row_of_the_board_shares_the_bases_videos() -> None:
    base = replace(candidates([[1.0], [2.0]], motion=[[0.1], [0.2]]), made_with={"steps": 8})
    more = candidates([[1.0, 5.0], [2.0, 0.0]], motion=[[0.1, 0.3], [0.2, 0.4]])
    row = best_of.picked(base, more, more.metrics["gold"], 2, "best of 2")
    assert row.files == base.files
    assert not row.made_with, "an expectation over candidates was made with no settings of its own"
    assert row.metrics == {"gold": [5.0, 2.0], "motion": [0.3, 0.2]}
    with pytest.raises(ValueError, match="same number of candidates"):
        best_of.curve(candidates([[1.0, 2.0], [1.0]]), [1.0, 2.0, 1.0], "gold")
    assert math.isinf(best_of.equal(best_of.curve(more, more.metrics["gold"], "gold"), np.full((1, 2), 9.0)).n)
