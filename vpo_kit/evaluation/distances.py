"""How far a set of clips is from a reference set: Frechet and kernel distance over any features.

Legend: ``X`` ``[N, D]`` features of generated clips, ``Y`` ``[M, D]`` of the reference. float64 throughout.

Sources: Dowson and Landau (1982), used for pictures by Heusel et al. (2017, FID) and for video by Unterthiner et al.
(2018, FVD); the unbiased squared maximum mean discrepancy of Gretton et al. (2012) with the cubic kernel of Binkowski
et al. (2018, KID). With fewer clips than features the Frechet distance is far too high, and comparable only between
sets of one size; the kernel distance has no such bias and may fall a little below zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vpo_kit.evaluation.statistics import Paired, jackknife, signs

Floats = NDArray[np.float64]
Distance = Callable[[Floats, Floats], float]
RESAMPLES = 500
"""Exchanges of prompts between the two sets, for p."""


def frechet(x: Floats, y: Floats) -> float:
    """Between the Gaussians of two sets: ``|m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))``; N, M from 2.

    With factors ``C_x = A'A`` and ``C_y = B'B`` the trace of the root is the sum of the singular values of ``A B'``,
    so no root is taken, and a covariance without full rank does no harm.
    """
    a, b = (_factor(part) for part in (x, y))
    mean = ((x.mean(0) - y.mean(0)) ** 2).sum()
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(mean + (a**2).sum() + (b**2).sum() - 2 * cross)


def _factor(x: Floats) -> Floats:
    """``A`` with ``A'A`` the covariance (unbiased) of the rows, and no more rows than columns."""
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(x) > x.shape[1] else centred


def kernel(x: Floats, y: Floats) -> float:
    """The unbiased squared maximum mean discrepancy with ``k(a, b) = (a.b / D + 1)^3``; N, M from 2."""
    return float(_apart(_gram(x, x)) + _apart(_gram(y, y)) - 2 * _gram(x, y).mean())


def _gram(x: Floats, y: Floats) -> Floats:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def _apart(gram: Floats) -> float:
    """The mean off the diagonal."""
    count = len(gram)
    return float((gram.sum() - np.trace(gram)) / (count * (count - 1)))


DISTANCES: dict[str, Distance] = {"frechet": frechet, "kernel": kernel}


def compare(
    before: Floats, after: Floats, reference: Floats, groups: Sequence[int], seed: int = 0
) -> dict[str, Paired]:
    """Both distances of both sets, with the jackknife's interval of the difference over prompts, and p.

    p is the share of exchanges under which the difference is as large: for each prompt, its videos change sides or
    stay. It holds for any statistic of two sets, as long as neither method differs from the other. With fewer than
    three prompts there is no interval: it is left at the difference itself, with a p of 1.
    """
    index = np.asarray(groups)
    return {name: _compare(measure, before, after, reference, index, seed) for name, measure in DISTANCES.items()}


def _compare(
    measure: Distance, before: Floats, after: Floats, reference: Floats, index: NDArray[np.int_], seed: int
) -> Paired:
    def change(old: Floats, new: Floats) -> float:
        return measure(new, reference) - measure(old, reference)

    names = np.unique(index)
    old, new = measure(before, reference), measure(after, reference)
    low = high = new - old
    p = 1.0
    if len(names) > 2:
        without = [change(before[index != name], after[index != name]) for name in names]
        low, high = jackknife(new - old, without)
        flips = signs(len(names), RESAMPLES, seed)[:, np.searchsorted(names, index)] < 0
        changes = [change(*_exchanged(before, after, flip)) for flip in flips]
        p = float((np.abs(changes) >= abs(new - old) * (1 - 1e-9)).mean())
    return Paired(
        before=old, after=new, difference=new - old, low=low, high=high, win_rate=None, count=len(before), p=p
    )


def _exchanged(before: Floats, after: Floats, flip: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    rows = flip[:, None]
    return np.where(rows, after, before), np.where(rows, before, after)
