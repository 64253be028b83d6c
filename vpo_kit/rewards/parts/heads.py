"""Small networks that turn statistics of frames into scores, several of them side by side.

Legend: ``B`` clips, ``F`` frames, ``N`` single frames, ``K`` statistics of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Ensemble(nn.Module):
    """The mean over `heads` that were trained from different starts: ``[..., K]`` to ``[...]``.

    One head alone is right by chance where the others are not, and is the easier to please.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, heads: Sequence[nn.Module], inputs: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        self.heads = nn.ModuleList(heads)

    def each(self, found: Tensor) -> Tensor:
        """Every head's output, ``[heads, ...]``."""
        x = (found - self.centre) / self.spread
        return torch.stack([head(x) for head in self.heads])

    def forward(self, found: Tensor) -> Tensor:
        return self.each(found).mean(0)


class TimeHead(nn.Module):
    """A network from ``[B, F, K]`` to ``[B, F]``: a frame sees those within three frames, and the whole clip's mean and
    maximum.
    """

    def __init__(self, inputs: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.enter = nn.Linear(inputs, width)
        self.along = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=2**k) for k in range(2))
        self.context = nn.Linear(3 * width, width)
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        z = functional.silu(self.enter(self.dropout(x)))
        for k, layer in enumerate(self.along):
            padded = functional.pad(z.transpose(1, 2), (2**k, 2**k), mode="replicate")
            z = z + functional.silu(layer(padded).transpose(1, 2))
        whole = [part.expand_as(z) for part in (z.mean(1, keepdim=True), z.amax(1, keepdim=True))]
        z = z + functional.silu(self.context(torch.cat([z, *whole], -1)))
        return self.score(z).squeeze(-1)  # type: ignore[no-any-return]


class FrameHead(nn.Module):
    """A network from ``[N, K]`` to ``[N]``."""

    def __init__(self, inputs: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.enter = nn.Linear(inputs, width)
        self.inner = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        z = self.dropout(functional.silu(self.enter(x)))
        return self.score(functional.silu(self.inner(z))).squeeze(-1)  # type: ignore[no-any-return]
