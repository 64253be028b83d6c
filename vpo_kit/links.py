"""Links: from the logit of a pair to its loss.

A link is one function; its slope, and its value where policy and reference are the same, follow from it, so that what
is logged as left of the gradient and what the health checks look at is the link's own, whichever it is. A new one is an
entry point of ``vpo_kit.links`` that names a `Link`.

Legend: ``z`` is the logit of a pair, ``beta / 2`` times how much further the policy has brought the winner's error down
than the loser's; 0 where policy and reference are the same.

Sources: DPO (arXiv 2305.18290), IPO (arXiv 2310.12036), SLiC-HF's hinge (arXiv 2305.10425), label smoothing (cDPO),
robust DPO (arXiv 2403.00409); divergence minimisation (dmpo) and the linear link (Linear-DPO) as the field names them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vpo_kit.errors import ConfigError
from vpo_kit.registry import LINKS


class LinkOptions(Protocol):
    """What a link may read beside the logit."""

    @property
    def label_smoothing(self) -> float: ...

    @property
    def noise_rate(self) -> float: ...

    @property
    def target(self) -> float: ...


@dataclass(frozen=True)
class Link:
    """A loss of the logit; `reads` names the options that it looks at, all others are refused beside it."""

    value: Callable[[Tensor, LinkOptions], Tensor]
    reads: Sequence[str] = ()

    def slope(self, z: Tensor, options: LinkOptions) -> Tensor:
        """How fast the loss falls as the logit rises, of the shape of `z`: what is left of the pair's gradient."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            (found,) = torch.autograd.grad(self.value(leaf, options).sum(), leaf)
        return -found

    def start(self, options: LinkOptions) -> tuple[float, float]:
        """Value and slope at logit 0, where every run begins."""
        zero = torch.zeros((), dtype=torch.float64)
        return float(self.value(zero, options)), float(self.slope(zero, options))


def _sigmoid(z: Tensor, options: LinkOptions) -> Tensor:
    smooth = options.label_smoothing
    return (1 - smooth) * F.softplus(-z) + smooth * F.softplus(z)


def _robust(z: Tensor, options: LinkOptions) -> Tensor:
    """A link that is unbiased where a known share of labels is swapped; unlike smoothing it has no lower bound."""
    rate = options.noise_rate
    return ((1 - rate) * F.softplus(-z) - rate * F.softplus(z)) / (1 - 2 * rate)


def _matched(z: Tensor, options: LinkOptions) -> Tensor:
    """``KL(Bernoulli(sigma(z)) || Bernoulli(target))``: least, and flat, where the policy is as sure as the target."""
    p, target = torch.sigmoid(z), options.target
    return p * (F.logsigmoid(z) - math.log(target)) + (1 - p) * (F.logsigmoid(-z) - math.log1p(-target))


SIGMOID = Link(_sigmoid, reads=["label_smoothing"])
# IPO regresses the implicit reward difference z / beta on 1 / (2 beta); scaled by beta^2 the target is 1/2 on the
# logit, so that the gradient's size compares with the other links
IPO = Link(lambda z, _: (z - 0.5).pow(2))
HINGE = Link(lambda z, _: F.relu(1 - z))
ROBUST = Link(_robust, reads=["noise_rate"])
DMPO = Link(_matched, reads=["target"])
LINEAR = Link(lambda z, _: -z)


@cache
def named(name: str) -> Link:
    """The link of a name, registered or ``package.module:NAME``. Raises `ConfigError`."""
    found = LINKS.load(name)
    if not isinstance(found, Link):
        raise ConfigError(f"link {name!r} must be a vpo_kit.links.Link, not {type(found).__name__}")
    return found
