"""Optical flow without weights: pyramidal Lucas and Kanade, and looking pictures up along it.

Legend: ``P`` pairs of frames, ``C`` channels. Pictures are float ``[P, C, H, W]``; flow is ``[P, 2, H, W]``, (x, y) in
pixels, so that ``warp(second, flow)`` looks like ``first``.

Sources: Lucas and Kanade (1981); Bouguet, "Pyramidal implementation of the Lucas Kanade feature tracker" (2001).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

WINDOW = 7
"""Side of the window that is taken to move as one."""
LEVELS, ITERATIONS, SMALLEST = 3, 3, 16
"""Halvings of the picture (no side below `SMALLEST`), and steps at each size, of one pixel at most."""
RIDGE = 1e-4
"""What is added to the squared gradients: where there is nothing to see, the flow stays what it was."""


@torch.no_grad()
def lucas_kanade(first: Tensor, second: Tensor) -> Tensor:
    """`flow_of`, without a gradient."""
    return flow_of(first, second)


def flow_of(first: Tensor, second: Tensor) -> Tensor:
    """Flow from `first` to `second`, ``[P, C, H, W]`` each in [0, 1], H and W >= 16.

    A change of brightness that is even over a window does not count as motion: window means are taken off.
    """
    pyramid = [(first.float(), second.float())]
    while len(pyramid) < LEVELS and min(pyramid[-1][0].shape[-2:]) >= 2 * SMALLEST:
        a, b = pyramid[-1]
        pyramid.append((functional.avg_pool2d(a, 2), functional.avg_pool2d(b, 2)))
    smallest = pyramid[-1][0]
    flow = smallest.new_zeros(len(first), 2, *smallest.shape[-2:])
    for a, b in reversed(pyramid):
        flow = resized(flow, a.shape[-2], a.shape[-1])
        solve = _solver(a)
        for _ in range(ITERATIONS):
            flow = local_mean(flow + solve(a - warp(b, flow)), 5)
    return flow


def _solver(picture: Tensor) -> Callable[[Tensor], Tensor]:
    """A function from a change of `picture` to the flow that explains it: least squares in each window."""
    x, y = gradient(picture)
    mean_x, mean_y = local_mean(x, WINDOW), local_mean(y, WINDOW)

    def covariance(a: Tensor, b: Tensor, mean_a: Tensor, mean_b: Tensor) -> Tensor:
        return local_mean((a * b).sum(1, keepdim=True), WINDOW) - (mean_a * mean_b).sum(1, keepdim=True)

    xx, yy = covariance(x, x, mean_x, mean_x) + RIDGE, covariance(y, y, mean_y, mean_y) + RIDGE
    xy = covariance(x, y, mean_x, mean_y)
    determinant = xx * yy - xy.square()

    def solve(change: Tensor) -> Tensor:
        mean = local_mean(change, WINDOW)
        xt, yt = covariance(x, change, mean_x, mean), covariance(y, change, mean_y, mean)
        return torch.cat([yy * xt - xy * yt, xx * yt - xy * xt], 1).div(determinant).clamp(-1, 1)

    return solve


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """`picture` ``[P, C, H, W]`` looked up at ``position + flow``, bilinear, edges repeated."""
    height, width = picture.shape[-2:]
    down = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    across = torch.arange(width, device=flow.device)[None, :] + flow[:, 0]
    grid = torch.stack([across * (2 / (width - 1)) - 1, down * (2 / (height - 1)) - 1], -1)
    return functional.grid_sample(picture, grid.to(picture.dtype), padding_mode="border", align_corners=True)


def resized(flow: Tensor, height: int, width: int) -> Tensor:
    """`flow` for pictures of another size."""
    if tuple(flow.shape[-2:]) == (height, width):
        return flow
    scale = flow.new_tensor([width / flow.shape[-1], height / flow.shape[-2]]).view(2, 1, 1)
    return functional.interpolate(flow, (height, width), mode="bilinear") * scale


def gradient(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, of the picture's own size, edges repeated."""
    padded = functional.pad(picture, (1, 1, 1, 1), mode="replicate")
    return (
        (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2,
        (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2,
    )


def local_mean(picture: Tensor, size: int) -> Tensor:
    """Mean over a square of odd `size`, over what lies inside the picture."""
    half = size // 2
    rows = functional.avg_pool2d(picture, (1, size), 1, (0, half), count_include_pad=False)
    return functional.avg_pool2d(rows, (size, 1), 1, (half, 0), count_include_pad=False)


def gaussian(picture: Tensor, sigma: float) -> Tensor:
    """``[P, C, H, W]`` blurred with a Gaussian of `sigma` pixels, edges repeated."""
    reach = max(1, round(2.5 * sigma))
    axis = torch.arange(-reach, reach + 1, device=picture.device, dtype=picture.dtype)
    kernel = torch.exp(-0.5 * (axis / sigma).square())
    kernel = kernel / kernel.sum()
    flat = picture.reshape(-1, 1, *picture.shape[-2:])
    flat = functional.pad(flat, (reach, reach, reach, reach), mode="replicate")
    flat = functional.conv2d(functional.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return flat.view_as(picture)
