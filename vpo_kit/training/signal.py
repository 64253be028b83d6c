"""Will these pairs teach anything? The gradient of a pair set at the start of a run, measured without training.

Every pair gives its own gradient ``g`` of the method's loss, at times of each band. Were the labels drawn by lot, each
``g`` would come with a random sign: so the squared length of the mean is compared with that of the mean under random
signs. What is common to all pairs has squared length ``S2 = (n |mean g|^2 - mean |g|^2) / (n - 1)``, which is 0 in
expectation for random labels; ``n = (mean |g|^2 - S2) / S2`` pairs give a mean whose cosine with the true direction is
``1 / sqrt 2``, and so many draws of (t, noise) where every draw is of another pair.

Gradients are kept as sketches: of every kind of layer K sums with random signs, whose inner products are those of the
gradients in expectation (Charikar et al., 2002). Legend: ``n`` pairs, ``b`` bands of training times, ``m`` kinds of
layers, sketches ``[n, b, m, K]``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpo_kit.methods.base import Batch, Method
from vpo_kit.sampler import derive_seed
from vpo_kit.training.loop import backward
from vpo_kit.training.lora import LoraPolicy

BANDS = ("low", "middle", "high")
"""Thirds of the training times, from little noise to much, each drawn equally often."""
SIZE = 1024
"""Numbers in a sketch of one kind of layer."""
LEVEL = 0.05
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A number with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_short(self.value)} [{_short(self.low)}, {_short(self.high)}]"


@dataclass(frozen=True)
class Direction:
    """What a set of gradients has in common: p of random labels, the cosine of the means of two halves, and the number
    of pairs at which the mean's cosine with the true direction is .71 (infinite where the estimate is not positive).
    """

    p: float
    cosine: Interval
    pairs: Interval

    @property
    def found(self) -> bool:
        return self.p < LEVEL


@dataclass(frozen=True, kw_only=True)
class Signal:
    """The direction of all draws together and of each band; by kind of layer its share of the common direction's
    squared length, and p; the draws that take the place of `Direction.pairs` where each is of another pair; and by how
    much the mean logit moves for each unit of summed rates, as far as one half of the pairs tells the other.
    """

    pairs: int
    draws: int
    whole: Direction
    bands: Mapping[str, Direction]
    kinds: Mapping[str, tuple[float, float]]
    draws_needed: float
    logit_per_rate: float


class Sketch:
    """Sums of a gradient's numbers with random signs, by kind of layer."""

    def __init__(self, policy: LoraPolicy, seed: int) -> None:
        self._kinds: dict[str, list[int]] = {}
        names = [key for name, network in policy.networks.items() for key in _names(name, network)]
        for place, name in enumerate(names):
            self._kinds.setdefault(kind_of(name), []).append(place)
        generator = torch.Generator().manual_seed(derive_seed(seed, "sketch"))
        self._signs = [
            (torch.randint(2, (p.numel(),), generator=generator, dtype=torch.int8) * 2 - 1) for p in policy.parameters
        ]

    @property
    def kinds(self) -> list[str]:
        return sorted(self._kinds)

    def __call__(self, gradients: Sequence[Tensor]) -> Tensor:
        """The sketch ``[m, K]`` of a gradient."""
        rows = []
        for kind in self.kinds:
            total = torch.zeros(SIZE)
            for place in self._kinds[kind]:
                flat = gradients[place].flatten().float().cpu() * self._signs[place]
                padded = torch.nn.functional.pad(flat, (0, -len(flat) % SIZE))
                total += padded.view(-1, SIZE).sum(0)
            rows.append(total)
        return torch.stack(rows)


def kind_of(name: str) -> str:
    """The kind of layer that a LoRA's weight belongs to: its name without numbers, ``attn1.to_v`` for example."""
    layer = re.split(r"\.lora_[AB]\.", name)[0]
    parts = [part for part in layer.split(".") if not part.isdecimal()]
    return ".".join(parts[-2:])


def _names(prefix: str, network: Any) -> list[str]:
    return [f"{prefix}.{key}" for key, _ in network.named_parameters() if ".lora_" in key and ".default." in key]


class Gradients:
    """The gradients of single pairs, gathered: sketches of all, and the sums over two halves of the pairs."""

    def __init__(self, policy: LoraPolicy, seed: int) -> None:
        self._policy = policy
        self._sketch = Sketch(policy, seed)
        self._halves = [[torch.zeros_like(p) for p in policy.parameters] for _ in range(2)]
        self._counts = [0, 0]

    @property
    def kinds(self) -> list[str]:
        return self._sketch.kinds

    def take(self, method: Method, batch: Batch, half: int) -> Tensor:
        """The sketch of the step's gradient ``[m, K]``."""
        for parameter in self._policy.parameters:
            parameter.grad = None
        backward(method.step(batch))
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._policy.parameters]
        for total, gradient in zip(self._halves[half], found, strict=True):
            total += gradient
        self._counts[half] += 1
        return self._sketch(found)

    def loss_per_rate(self) -> float:
        """How fast the mean loss of one half falls along the signs of the other half's gradient, which is how AdamW
        begins: for each unit of summed rates, the mean of both ways.
        """
        one, other = ([t / max(1, n) for t in half] for half, n in zip(self._halves, self._counts, strict=True))
        both = ((one, other), (other, one))
        ways = [sum(float((a * b.sign()).sum()) for a, b in zip(x, y, strict=True)) for x, y in both]
        return sum(ways) / 2


def measure(
    sketches: Tensor, again: Tensor, kinds: Sequence[str], loss_per_rate: float, slope: float, seed: int
) -> Signal:
    """`sketches` ``[n, b, m, K]``; `again` ``[r, b, m, K]`` are second draws of the first r pairs. `slope` is the
    loss's slope in the logit at the start.
    """
    x = sketches.double().numpy()
    count, bands = x.shape[:2]
    whole = direction(x.mean(1).reshape(count, -1), seed)
    by_band = {BANDS[b]: direction(x[:, b].reshape(count, -1), seed) for b in range(bands)}
    total = x.mean(1)
    signal = common(total.reshape(count, -1))
    shares = {
        kind: (common(total[:, i]) / signal if signal > 0 else math.nan, direction(total[:, i], seed).p)
        for i, kind in enumerate(kinds)
    }
    single = np.concatenate([x.reshape(count * bands, -1), again.double().numpy().reshape(len(again) * bands, -1)])
    draws = (float((single**2).sum(1).mean()) - signal) / signal if signal > 0 else math.inf
    return Signal(
        pairs=count,
        draws=len(single),
        whole=whole,
        bands=by_band,
        kinds=shares,
        draws_needed=draws,
        logit_per_rate=loss_per_rate / slope if slope else math.nan,
    )


def direction(gradients: Floats, seed: int, resamples: int = 1000) -> Direction:
    """The common direction of gradients ``[n, d]``, one for each pair."""
    count = len(gradients)
    gram = gradients @ gradients.T
    rng = np.random.default_rng(seed)
    signs = rng.integers(2, size=(resamples, count)) * 2.0 - 1.0
    null = np.einsum("rn,nm,rm->r", signs, gram, signs, optimize=True)
    p = float((1 + (null >= gram.sum() * (1 - 1e-12)).sum()) / (resamples + 1))
    parts = np.array_split(rng.permutation(count), min(10, count))
    kept = [np.setdiff1d(np.arange(count), part) for part in parts]
    cosine = _jackknife(lambda rows: _cosine(gram[np.ix_(rows, rows)], seed), count, kept)
    needed = _jackknife(lambda rows: _log_needed(gram[np.ix_(rows, rows)]), count, kept)
    values = (needed.value, needed.low, needed.high)
    return Direction(p, cosine, Interval(*(math.exp(v) if v < 50 else math.inf for v in values)))


def common(gradients: Floats) -> float:
    """The squared length of what all pairs have in common, an unbiased estimate that may be below zero."""
    count = len(gradients)
    return float(count * (gradients.mean(0) ** 2).sum() - (gradients**2).sum(1).mean()) / (count - 1)


def _cosine(gram: Floats, seed: int, splits: int = 50) -> float:
    """The mean cosine of the means of two random halves."""
    rng, count = np.random.default_rng(seed), len(gram)
    found = []
    for _ in range(splits):
        order = rng.permutation(count)
        one, two = order[: count // 2], order[count // 2 :]
        inner = gram[np.ix_(one, two)].sum()
        found.append(inner / math.sqrt(max(gram[np.ix_(one, one)].sum() * gram[np.ix_(two, two)].sum(), 1e-300)))
    return float(np.mean(found))


def _log_needed(gram: Floats) -> float:
    """The logarithm of the number of pairs for a cosine of .71."""
    count = len(gram)
    own = float(np.trace(gram)) / count
    signal = (float(gram.sum()) / count - own) / (count - 1)
    return math.log(max((own - signal) / signal, 1.0)) if signal > 0 else 1e3


def _jackknife(statistic: Callable[[Any], float], count: int, kept: Sequence[Any]) -> Interval:
    """A delete-a-group jackknife over pairs."""
    whole = statistic(np.arange(count))
    values = np.array([statistic(rows) for rows in kept])
    groups = len(values)
    error = math.sqrt((groups - 1) / groups * ((values - values.mean()) ** 2).sum())
    return Interval(whole, whole - 1.96 * error, whole + 1.96 * error)


def _short(value: float) -> str:
    return "more" if math.isinf(value) else f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2f}"
