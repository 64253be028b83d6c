"""Ratings of clips as the tensors that unpaired methods read.

Legend: ``N`` clips of a set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from vpo_kit.methods.advantages import advantages

VERDICT = 0.5
"""The limit between bad (0) and good (1)."""


def tensors(ratings: Sequence[float], prompts: Sequence[str]) -> dict[str, Tensor]:
    """``rating`` as it is; ``standing`` among the set's clips of the same prompt, in deviations from their mean, 0 for
    a clip alone; and ``middle``, the line between good and bad, the same for all: that of verdicts where there are
    only verdicts, else the mean rating. Each ``[N]``.
    """
    values = torch.tensor(ratings, dtype=torch.float64)
    groups = defaultdict(list)
    for i, prompt in enumerate(prompts):
        groups[prompt].append(i)
    standing = torch.zeros_like(values)
    for places in groups.values():
        standing[places] = advantages(values[places][None])[0]
    middle = VERDICT if set(ratings) <= {0.0, 1.0} else float(values.mean())
    found = {"rating": values, "standing": standing, "middle": torch.full_like(values, middle)}
    return {name: value.float() for name, value in found.items()}
