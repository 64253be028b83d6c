"""The pairs of a set as a source of items: latents and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from vpo_kit.inputs import Inputs
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.segments import latent_labels


class Pairs:
    """The pairs of a set: latents ``first``, ``second``, ``clip`` ``[P, C, T, h, w]``, ``labels`` ``[P, T]`` of latent
    frames, ``label`` ``[P]``, ``motion`` ``[P, 2]`` of both members, 1 where it is not known; and, where one
    is local, ``mask`` ``[P, T, h, w]`` of what differs.

    ``clip`` is the real clip's latent where the set has it, else the winner's (`Pair.has_clip`). With `weights` also
    ``weight`` ``[P]``; `encoded` gives the latents of pairs whose set has none. With `first_frame`, which decodes a
    latent ``[1, C, T, h, w]`` to its first frame, each is made from that of its ``clip``.
    """

    def __init__(
        self,
        path: Path,
        pairs: Sequence[Pair],
        frame_map: Sequence[tuple[int, int]],
        encoded: Callable[[Pair], Mapping[str, Tensor]] | None = None,
        weights: Sequence[float] | None = None,
        first_frame: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.sizes = None
        self._path = path
        self._pairs = pairs
        self._encoded = encoded
        self._weights = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.prompts = [pair.prompt for pair in pairs]
        frames = [None if first_frame is None else self._frame(i, first_frame) for i in range(len(pairs))]
        self.inputs = [Inputs(pair.prompt, frame) for pair, frame in zip(pairs, frames, strict=True)]
        self.names = [pair.id for pair in pairs]
        zeros = [0] * len(frame_map)
        self._labels = torch.tensor(
            [_latent_labels(p, frame_map) if p.labels else zeros for p in pairs], dtype=torch.float32
        )
        self._label = torch.tensor([pair.label or 0 for pair in pairs], dtype=torch.float32)
        moved = [(fmean(p.motion.first), fmean(p.motion.second)) if p.motion else (1.0, 1.0) for p in pairs]
        self._motion = torch.tensor(moved, dtype=torch.float32)

    @property
    def scores(self) -> Tensor:
        """Both members' clip scores ``[N, 2]``, NaN where there are none."""
        nothing = (float("nan"), float("nan"))
        return torch.tensor([(p.scores.first_clip, p.scores.second_clip) if p.scores else nothing for p in self._pairs])

    def tensors(self, indices: Sequence[int]) -> dict[str, Tensor]:
        files = [self._latents(self._pairs[i]) for i in indices]
        winner = ["second" if self._pairs[i].label == -1 else "first" for i in indices]
        clips = [file.get("source", file[name]) for file, name in zip(files, winner, strict=True)]
        masks = [file.get("mask", torch.ones(file["first"].shape[1:])) for file in files]
        weights = {} if self._weights is None else {"weight": self._weights[list(indices)]}
        found = weights | {
            "first": torch.stack([file["first"] for file in files]),
            "second": torch.stack([file["second"] for file in files]),
            "clip": torch.stack(clips),
            "labels": self._labels[list(indices)],
            "label": self._label[list(indices)],
            "motion": self._motion[list(indices)],
        }
        return {**found, "mask": torch.stack(masks)} if any("mask" in file for file in files) else found

    def ahead(self, indices: Sequence[int]) -> None:
        """Nothing: reading stored latents takes no time."""

    def _frame(self, index: int, decode: Callable[[Tensor], Tensor]) -> DecodedFrame:
        pair = self._pairs[index]
        winner = "second" if pair.label == -1 else "first"  # another labeller's may be the other one
        held = pair.sha256.latents or getattr(pair.sha256, winner)
        return DecodedFrame(f"{winner} {held}", lambda: self.tensors([index])["clip"], decode)

    def _latents(self, pair: Pair) -> Mapping[str, Tensor]:
        if pair.latents is not None:
            return store.read_latents(self._path / pair.latents)
        assert self._encoded is not None
        return self._encoded(pair)


def _latent_labels(pair: Pair, frame_map: Sequence[tuple[int, int]]) -> list[int]:
    """A label for each latent frame; one that was given to the whole clip holds however much of it is trained on."""
    assert pair.labels is not None
    if pair.strategy == "imported":
        return [pair.labels[0]] * len(frame_map)
    return latent_labels(pair.labels, pair.segments, frame_map)


@dataclass(frozen=True)
class DecodedFrame:
    """The first frame of a latent, as a picture: `latent` gives ``[1, C, T, h, w]``, `decode` its first frame
    ``[3, H, W]``.
    """

    key: str
    latent: Callable[[], Tensor]
    decode: Callable[[Tensor], Tensor]

    def read(self, height: int, width: int) -> Tensor:
        """The frame; the latent has that size already."""
        return self.decode(self.latent())
