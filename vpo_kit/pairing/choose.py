"""The choice of the candidates of a prompt that become pairs: one for sets that are made and for videos that training
samples.

A choice is a function of scores; a new one is an entry point of ``vpo_kit.choices``, or ``package.module:function``.
Legend: ``P`` prompts, ``n`` candidates of each, ``K`` pairs of each; a column is a candidate's place in its prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vpo_kit.pairing.settings import Choosing
from vpo_kit.registry import CHOICES


class Choice(Protocol):
    """Columns of winners and losers ``[P, K]`` from scores ``[P, n]``; K follows from n and `num_pairs` alone."""

    def __call__(self, scores: Tensor, num_pairs: int) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Chosen:
    """Rows of winners and losers ``[m]`` among the ``P * n`` candidates; `places` ``[m]`` are the pairs' among the
    ``P * K`` that could have been, and `skipped` is the share of those that the margin left out.
    """

    winners: Tensor
    losers: Tensor
    places: Tensor
    skipped: float


def best(scores: Tensor, num_pairs: int) -> tuple[Tensor, Tensor]:
    """The best against the worst, the second best against the second worst, and so on."""
    order = scores.sort(dim=1, descending=True, stable=True).indices
    return order[:, :num_pairs], order.flip(1)[:, :num_pairs]


def crossed(scores: Tensor, num_pairs: int) -> tuple[Tensor, Tensor]:
    """Each of the k best against each of the k worst: k x k pairs."""
    winners, losers = best(scores, num_pairs)
    return winners.repeat_interleave(num_pairs, 1), losers.repeat(1, num_pairs)


def every(scores: Tensor, num_pairs: int) -> tuple[Tensor, Tensor]:
    """Each two candidates, in the order of their columns; `num_pairs` is not looked at."""
    i, j = torch.triu_indices(scores.shape[1], scores.shape[1], 1, device=scores.device)
    right = scores[:, i] >= scores[:, j]
    return torch.where(right, i, j), torch.where(right, j, i)


def most(settings: Choosing) -> int:
    """How many pairs of a prompt there can be (K)."""
    found: Choice = CHOICES.load(settings.pairs)
    return int(found(torch.zeros(1, settings.num_candidates), settings.num_pairs)[0].shape[1])


def choose(scores: Tensor, settings: Choosing) -> Chosen:
    """The pairs of ``[P, n]`` scores that are apart by the margin; equal scores are a tie whatever the margin."""
    found: Choice = CHOICES.load(settings.pairs)
    winners, losers = found(scores, settings.num_pairs)
    margin = (scores.gather(1, winners) - scores.gather(1, losers)).flatten()
    kept = ((margin >= settings.min_margin) & (margin > 0)).nonzero().flatten()
    first = torch.arange(len(scores), device=scores.device)[:, None] * scores.shape[1]
    rows = [(first + column).flatten()[kept] for column in (winners, losers)]
    return Chosen(rows[0], rows[1], kept, 1 - len(kept) / len(margin))
