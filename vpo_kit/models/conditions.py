"""What a network sees beside the latents: encoded prompts and pictures.

Legend: ``B`` videos, ``C`` latent channels, ``T`` latent frames, ``h w`` latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditions:
    """Encoded prompts and pictures: named tensors, each with the items along its first dimension.

    ``given`` ``[B, C, k, h, w]`` are clean latents of a video's first `k` frames, in families that take them so: they
    get no noise, no loss and time 0, and the sampler keeps them.
    """

    tensors: dict[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: Tensor | list[int] | slice) -> Conditions:
        return Conditions({k: v[index] for k, v in self.tensors.items()})

    def to(self, device: torch.device) -> Conditions:
        """The same on another device."""
        return Conditions({k: v.to(device) for k, v in self.tensors.items()})

    def repeat(self, count: int) -> Conditions:
        """Each prompt `count` times in a row."""
        return Conditions({k: v.repeat_interleave(count, 0) for k, v in self.tensors.items()})

    def expand(self, count: int) -> Conditions:
        """A single prompt as a batch of `count`, without a copy."""
        return Conditions({k: v.expand(count, *v.shape[1:]) for k, v in self.tensors.items()})

    def replaced(self, index: int, other: Conditions) -> Conditions:
        """A copy in which the item at `index` says what the one item of `other` does (`instead`)."""
        tensors = {k: v.clone() for k, v in self.tensors.items()}
        for name, value in other.tensors.items():
            tensors[name][index] = value[0]
        return Conditions(tensors)

    def with_guidance(self, scale: float) -> Conditions | None:
        """These prompts at an embedded guidance `scale`, or None where the network takes no such input."""
        if "guidance" not in self.tensors:
            return None
        return Conditions({**self.tensors, "guidance": torch.full_like(self.tensors["guidance"], scale)})

    def instead(self, other: Conditions) -> Conditions:
        """These items with what `other`, one for all or one each, says: a negative prompt is about the text, and sees
        the picture of each item.
        """
        count = len(self)
        return Conditions({**self.tensors, **(other if len(other) == count else other.expand(count)).tensors})

    @property
    def num_given(self) -> int:
        """How many latent frames are given."""
        return self.tensors["given"].shape[2] if "given" in self.tensors else 0

    def token_times(self, time: Tensor, frames: int, tokens: int) -> Tensor:
        """The times ``[B]`` for each token, ``[B, frames * tokens]`` frame by frame: 0 in the given frames."""
        spread = time[:, None].repeat(1, frames)
        spread[:, : self.num_given] = 0
        return spread.repeat_interleave(tokens, 1)

    def held(self, latents: Tensor, value: float | None = None) -> Tensor:
        """`latents` ``[B, C, T, h, w]`` with the given frames in their place, or with `value` there."""
        count = self.num_given
        if not count:
            return latents
        own = latents[:, :, :count]
        filling = self.tensors["given"].to(latents) if value is None else torch.full_like(own, value)
        return torch.cat([filling, latents[:, :, count:]], 2)

    def begun(self, noise: Tensor) -> Tensor:
        """The noise of a chain, of `noise` ``[B, C, T, h, w]``."""
        if "noise" in self.tensors:
            share = self.tensors["noise"].to(noise).view(-1, 1, 1, 1, 1)
            return noise * share + self.tensors["given"].to(noise) * (1 - share)
        return noise

    def free(self, mask: Tensor | None, like: Tensor) -> Tensor | None:
        """What counts of an error of latents `like` ``[B, C, T, h, w]``, ``[B, T, h, w]`` of 0 and 1: a `mask` without
        the given frames; None where all of it does.
        """
        if "given" not in self.tensors:
            return mask
        whole = torch.ones_like(like[:, :1]) if mask is None else mask[:, None].to(like)
        return self.held(whole.expand_as(like), 0.0)[:, 0]

    @staticmethod
    def cat(parts: Sequence[Conditions]) -> Conditions:
        return Conditions({k: torch.cat([p.tensors[k] for p in parts]) for k in parts[0].tensors})
