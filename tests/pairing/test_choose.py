"""One choice of pairs, for sets and for training alike."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from vpo_kit.config import validate
from vpo_kit.errors import ConfigError
from vpo_kit.methods.online import OnlineConfig
from vpo_kit.pairing.choose import choose, most
from vpo_kit.pairing.settings import Choosing, Independent

SCORES = torch.tensor([[0.1, 0.9, 0.5, 0.3], [2.0, 2.0, 2.0, 2.0], [4.0, 3.0, 2.0, 1.0]])


def chosen(scores: Tensor, **settings: object) -> list[tuple[int, int, int]]:
    found = choose(scores, Choosing(num_candidates=scores.shape[1], **settings))  # type: ignore[arg-type]
    return list(zip(found.winners.tolist(), found.losers.tolist(), found.places.tolist(), strict=True))


def test_best_against_worst_in_turn() -> None:
    assert chosen(SCORES) == [(1, 0, 0), (8, 11, 2)]
    assert chosen(SCORES, num_pairs=2) == [(1, 0, 0), (2, 3, 1), (8, 11, 4), (9, 10, 5)]


def test_crossed_takes_each_of_the_best_against_each_of_the_worst() -> None:
    assert [pair[:2] for pair in chosen(SCORES[:1], pairs="crossed", num_pairs=2)] == [(1, 0), (1, 3), (2, 0), (2, 3)]


def test_all_takes_every_two_that_differ() -> None:
    found = chosen(SCORES, pairs="all")
    assert {tuple(sorted(pair[:2])) for pair in found[:6]} == set(itertools.combinations(range(4), 2))
    assert all(SCORES.flatten()[better] > SCORES.flatten()[worse] for better, worse, _ in found)
    assert len(found) == 12


@pytest.mark.parametrize("pairs", ["best", "crossed", "all"])
def test_the_margin(pairs: str) -> None:
    """At it a pair counts, and equal scores never do; the share that is left out is said."""
    settings = Choosing(num_candidates=4, pairs=pairs, min_margin=1.0)
    assert most(settings) == (6 if pairs == "all" else 1)
    found = choose(SCORES, settings)
    gaps = SCORES.flatten()[found.winners] - SCORES.flatten()[found.losers]
    assert gaps.min() >= 1
    assert found.skipped == pytest.approx(1 - len(found.winners) / (3 * most(settings)))


def own(scores: Tensor, num_pairs: int) -> tuple[Tensor, Tensor]:
    """The best against each other one."""
    order = scores.argsort(1, descending=True)
    return order[:, :1].expand(-1, scores.shape[1] - 1), order[:, 1:]


@pytest.mark.parametrize("kind", [OnlineConfig, Independent])
def test_one_function_is_a_new_choice_for_both(kind: type[Choosing]) -> None:
    settings = kind(num_candidates=4, pairs="tests.pairing.test_choose:own")
    assert most(settings) == 3
    found = choose(SCORES[2:], settings)
    assert (found.winners.tolist(), found.losers.tolist()) == ([0, 0, 0], [1, 2, 3])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"pairs": "bst"}, "unknown choice of pairs 'bst' .did you mean 'best'"),
        ({"pairs": "all", "num_pairs": 2}, "takes every two candidates"),
        ({"num_candidates": 3, "num_pairs": 2}, "2 pairs of a prompt need at least 4 candidates"),
    ],
)
def test_settings_that_do_not_fit(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        validate(Independent, {"num_candidates": 4, **values})
