"""Bradley-Terry with ties: two rows in closed form, a simulated panel within its intervals, a row that never loses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vpo_kit.study import strengths as module
from vpo_kit.study.design import drawn
from vpo_kit.study.strengths import Verdict, fit, strengths, win_rate


def test_two_rows_have_a_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """The odds are wins to losses, and nu is ties over the root of both."""
    monkeypatch.setattr(module, "RIDGE", 1e-9)
    wins, losses, ties = 40.0, 10.0, 16.0
    found, log_nu, _ = fit(np.array([[[0, wins], [losses, 0]]]), np.array([[[0, ties], [ties, 0]]]))
    assert found[0, 0] - found[0, 1] == pytest.approx(math.log(wins / losses), abs=1e-6)
    assert log_nu[0] == pytest.approx(math.log(ties / math.sqrt(wins * losses)), abs=1e-6)
    share = win_rate(found[0, 0] - found[0, 1], log_nu[0])
    assert share == pytest.approx((wins + ties / 2) / (wins + losses + ties), abs=1e-6)


def test_the_likelihood_is_at_its_top(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newton's derivatives against the formula itself: no step in any direction is better."""
    rng = np.random.default_rng(0)
    wins, ties = rng.integers(1, 9, (1, 4, 4)).astype(float), rng.integers(0, 5, (1, 4, 4)).astype(float)
    wins[:, range(4), range(4)] = 0
    ties = np.triu(ties[0], 1)[None] + np.triu(ties[0], 1).T[None]

    def loss(state: np.ndarray) -> float:
        total = -module.RIDGE / 2 * float((state**2).sum())
        for i in range(4):
            for j in range(i):
                scores = np.array([state[i], state[j], state[4] + (state[i] + state[j]) / 2])
                scores -= np.log(np.exp(scores).sum())
                total += float(scores @ [wins[0, i, j], wins[0, j, i], ties[0, i, j]])
        return -total

    found, log_nu, _ = fit(wins, ties)
    best = np.array([*found[0], log_nu[0]])
    assert all(loss(best) <= loss(best + 1e-3 * step) for step in rng.normal(size=(50, 5)))


def panel(truth: list[float], nu: float, raters: int, prompts: int, seed: int) -> list[Verdict]:
    """What raters say who follow the model, each of every pair of the design."""
    rng, said = np.random.default_rng(seed), []
    for item, (first, second) in drawn(prompts, len(truth), seed):
        for rater in range(raters):
            half = (truth[first] - truth[second]) / 2
            odds = np.array([math.exp(half), math.exp(-half), nu])
            said.append(Verdict(first, second, (1, -1, 0)[rng.choice(3, p=odds / odds.sum())], str(item), str(rater)))
    return said


def test_a_simulated_panel_is_recovered_within_its_intervals() -> None:
    truth, inside = [0.0, 0.8, -0.4, 0.3], 0
    for seed in range(8):
        found = strengths(panel(truth, 0.8, 5, 40, seed), 4, resamples=300)
        assert (found[0].log_odds, found[0].low, found[0].high, found[0].win_rate) == (0, 0, 0, 0.5)
        inside += sum(one.low <= want <= one.high for one, want in zip(found[1:], truth[1:], strict=True))
        assert found[1].significant
    assert inside >= 21  # of 24 at 95%, and cautious


def test_a_row_that_always_wins_has_a_strength_too() -> None:
    found = strengths([Verdict(1, 0, 1, str(i), "ann") for i in range(30)], 3, resamples=50)
    assert 0 < found[1].low <= found[1].log_odds < 20
    assert found[1].win_low > 0.5
    assert found[2].verdicts == 0
    assert found[2].low < 0 < found[2].high
    assert found[2].log_odds == pytest.approx(found[1].log_odds / 2, abs=1e-6)  # never shown: in the middle
    few = strengths([Verdict(1, 0, 1, str(i), "ann") for i in range(2)], 2, resamples=50)
    assert not few[1].significant  # two heads in a row
    with pytest.raises(ValueError, match="no verdict"):
        strengths([], 2)
