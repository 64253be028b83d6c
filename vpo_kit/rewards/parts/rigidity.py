"""How much of the change between neighbouring frames is neither the camera's nor that of things that move as wholes.

Legend: ``P`` pairs of frames, ``N = h w`` places of a flow, ``c`` cells.

A camera that pans, zooms and turns moves a picture by an affine map, and what moves in front of it leaves most of the
picture to the camera. So where there is something to see, the quarter of the places that follow the best affine map
best follow it closely, whatever moves; in a picture that swells and ebbs, none do.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vpo_kit.rewards.flow import flow_of, gradient, local_mean

CELL, FEWEST = 8, 6
"""Side of the cells whose means are compared, and how many must hold something to see."""
QUARTER = 0.25
SEEN = 2e-4
"""Squared gradient at which a place counts as half flat and half detail."""
ROUNDS, EPSILON = 3, 0.02
"""Fits of the affine map, each with less weight on what strays from it by more than its mean and so many pixels."""
FLOOR = 0.1
"""Share of the speed by which a flow may stray and nobody would say so: a still clip is no better than a clean one."""
SPEED = 0.25
"""What is added to the camera's own speed, in pixels a frame, by which the residual is measured: a flow errs in
proportion.
"""


def stray(first: Tensor, second: Tensor) -> Tensor:
    """Pairs of pictures ``[P, 3, h, w]``, h and w from 32, to ``[P]``: the logarithm of the lower quartile, over cells,
    of how far the flow strays from an affine map, over the map's mean speed.
    """
    one, other = (frames.mean(1, keepdim=True) for frames in (first, second))
    flow = flow_of(one, other)
    across, down = gradient(one)
    energy = local_mean(across.square() + down.square(), 7)[:, 0].detach()
    weight = energy / (energy + SEEN)
    rest, speed = _apart(flow, weight)
    ratio = _quartile(rest, weight) / (speed + SPEED)
    return (ratio + FLOOR).log()


def _apart(flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The flow's distance from the affine map that fits it best ``[P, h, w]``, and the map's mean speed ``[P]``."""
    height, width = flow.shape[-2:]
    sides = (torch.linspace(-1, 1, side, device=flow.device) for side in (height, width))
    y, x = torch.meshgrid(*sides, indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y], -1).view(-1, 3).double()
    values, own = flow.flatten(2).mT.double(), weight.flatten(1).double() + 1e-6
    trust, distance, fitted = own, own, values
    for _ in range(ROUNDS):
        normal = torch.einsum("pn,ni,nj->pij", trust, basis, basis) + 1e-6 * torch.eye(3, device=flow.device).double()
        right = torch.einsum("pn,ni,pnk->pik", trust, basis, values)
        fitted = basis @ torch.linalg.solve(normal, right)
        distance = ((values - fitted).square().sum(-1) + 1e-8).sqrt()
        scale = (own * distance).sum(1, keepdim=True) / own.sum(1, keepdim=True)
        trust = own / (1 + (distance / (scale + EPSILON)).square()).detach()
    speed = (fitted.square().sum(-1) + 1e-8).sqrt().mean(1)
    return distance.view(-1, height, width).to(flow.dtype), speed.to(flow.dtype)


def _quartile(rest: Tensor, weight: Tensor) -> Tensor:
    """``[P]``, over the cells where there is something to see; 0 where there are too few."""
    seen = functional.avg_pool2d(weight[:, None], CELL).flatten(1)
    cells = functional.avg_pool2d((rest * weight)[:, None], CELL).flatten(1) / seen.clamp(min=1e-3)
    enough = seen > 0.3
    # cells without detail go to the top, and the place of the quartile is counted among the others
    ordered = torch.where(enough, cells, cells.new_tensor(1e6)).sort(1).values
    count = enough.sum(1)
    place = QUARTER * (count - 1).clamp(min=0)
    low = place.floor().long()
    high = torch.minimum(low + 1, (count - 1).clamp(min=0))
    share = (place - low).to(rest.dtype)
    rows = torch.arange(len(rest), device=rest.device)
    found = ordered[rows, low] * (1 - share) + ordered[rows, high] * share
    return torch.where(count >= FEWEST, found, torch.zeros_like(found))
