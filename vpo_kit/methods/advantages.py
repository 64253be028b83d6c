"""What is learned from each of a prompt's candidates, by their scores.

Legend: ``P`` prompts, ``n`` candidates each, scores ``[P, n]``.
"""

from __future__ import annotations

from torch import Tensor

from vpo_kit.processes import Processes

EVEN = 1e-6
"""A spread of scores at or below it is none: all advantages of such a group are zero."""


def advantages(scores: Tensor) -> Tensor:
    """``(score - mean) / deviation`` within each prompt, ``[P, n]``; zeros where all scores are equal.

    In double precision: of scores that hardly differ, rounding would else be a visible share of what tells them apart,
    and the advantages of a prompt would no longer add up to zero.
    """
    apart = scores.double() - scores.double().mean(1, keepdim=True)
    spread = apart.pow(2).mean(1, keepdim=True).sqrt()
    return ((apart / spread.clamp_min(EVEN)) * (spread > EVEN)).to(scores.dtype)


def informative(scores: Tensor) -> float:
    """The share of the prompts whose candidates differ in score: the others have no advantage, and teach nothing."""
    return float((scores.std(1, correction=0) > EVEN).float().mean())


def shares(values: Tensor, temperature: float, processes: Processes) -> Tensor:
    """Weights ``exp(value / temperature)`` ``[N]`` with mean 1 over the global batch."""
    top = max(processes.gather([float(values.max())])) if len(values) else 0.0
    weights = ((values - top) / temperature).exp()
    count = processes.total(weights.new_tensor([float(weights.sum()), float(len(weights))]).double())
    return weights * float(count[1] / count[0])
