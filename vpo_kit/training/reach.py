"""How far a recipe's steps can move the weights, from its settings alone, in words.

AdamW moves a weight by about its rate in every step, however large the gradient is. The LoRA's factor B starts at zero
and A at numbers of size ``1 / sqrt(3 n)`` for n inputs, so after rates that add up to ``S`` a layer's output has
changed by about ``scale S sqrt(rank) / sqrt(3)`` of the size of its input: `reach` is that without the constant.

DenseDPO's settings (rank 128, 1e-5, 1,000 steps) give .10, a public report of a run that changed nothing that could be
seen .007. Where runs are lost was measured on the embedded model (``python -m benchmarks.learning.reach``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vpo_kit.config import Run
from vpo_kit.training.rates import factor

LITTLE, MUCH = 0.02, 0.75
"""The limits of a reach: below the first a change cannot be seen in the videos, above the second most runs are lost."""


@dataclass(frozen=True)
class Reach:
    """The sum of a run's rates, and what it can do to the network's weights."""

    rates: float
    reach: float

    @property
    def verdict(self) -> str:
        if self.reach < LITTLE:
            return "cannot be seen in the videos"
        return "will overshoot" if self.reach > MUCH else "enough"

    def __str__(self) -> str:
        return f"the rates add up to {self.rates:.2g}, a reach of {self.reach:.2g}: {self.verdict}"


def reach(run: Run) -> Reach:
    """The reach of the whole run; of two experts the one with the higher rate counts."""
    lr = max(run.optimiser.lr.values()) if isinstance(run.optimiser.lr, dict) else run.optimiser.lr
    total = lr * sum(factor(run.optimiser, step, step / run.steps) for step in range(run.steps))
    return Reach(total, total * run.lora.scale * math.sqrt(run.lora.rank))


def line(run: Run) -> str:
    """What a run says of its recipe at its start."""
    found = reach(run)
    if run.max_passes is not None or run.max_seconds is not None:  # `steps` is then a limit far away
        seen, much = (math.ceil(run.steps * limit / found.reach) for limit in (LITTLE, MUCH))
        return (
            f"recipe: the budget decides how many steps it is: {seen:,} can be seen, more than {much:,} will overshoot"
        )
    if found.verdict == "enough":
        return f"recipe: {found}"
    up = found.verdict == "will overshoot"
    hint = "lower optimiser.lr or let it fall (optimiser.schedule)" if up else "raise optimiser.lr or steps"
    return f"recipe: {found}: {hint}; vpo pair signal says more where there are pairs"
