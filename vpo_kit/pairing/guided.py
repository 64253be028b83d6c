"""Guided pairs (DenseDPO, arXiv 2506.03517): both members start from one real clip, noised to one level.

``x_eta = (1 - eta) x + eta eps`` with the same eta and two noises, denoised from there. On a shifted or discrete
schedule eta is the level at which the chain really starts: the schedule's own level nearest to the one drawn.
Legend: ``B`` clips, video ``[B, F, 3, H, W]``, latents ``[B, C, T, h, w]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vpo_kit.clips import Clip
from vpo_kit.pairing.job import Job, Made, Outcome, Task, batches, items_of
from vpo_kit.sampler import PartialStart, chain_levels, derive_seed, draw_noise, nearest_step, sample


class GuidedMaker:
    """One item is one clip, or one of several pairs of a clip."""

    def __init__(self, task: Task, clips: Sequence[Clip]) -> None:
        settings = task.sampling
        self.task = task
        each = task.settings.guided.pairs_per_clip
        self.clips = [clip for clip in clips for _ in range(each)]
        self.items = items_of(clips, each)
        self.shape = task.model.latent_shape(settings.frames, settings.height, settings.width)
        self.levels = chain_levels(task.model, settings.steps, self.shape)
        self.first = [self._first(item) for item in range(len(self.clips))]

    def job(self) -> Job:
        """Batches hold items that start at the same step: they go through the network together."""
        size = self.task.settings.sampling.batch_size // 2
        found: list[Sequence[int]] = []
        for step in sorted(set(self.first)):
            found += batches(self.items, size, (item for item, first in enumerate(self.first) if first == step))
        return Job("guided", self.items, found, self.make)

    def make(self, batch: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
        items, source, failed = self.task.sources(self.clips, batch)
        yield from failed
        if source is None:
            return
        latents = self.members(items, source)
        decoded = self.task.model.decode(latents).cpu()
        for row, item in enumerate(items):
            a, b = row, row + len(items)
            parts = {"first": latents[a], "second": latents[b], "source": source[row]}
            made = Made(
                prompt=self.clips[item].prompt,
                first=decoded[a],
                second=decoded[b],
                latents=parts,
                seeds=self._seeds(item),
                eta=round(float(self.levels[self.first[item]]), 6),
            )
            yield item, [made]

    def members(self, items: Sequence[int], source: Tensor) -> Tensor:
        """All first members, then all second ones, ``[2 B, C, T, h, w]``, in one pass through the chain."""
        task = self.task
        seeds = [self._seeds(item)[k] for k in (0, 1) for item in items]
        guidance = task.model.guidance(task.sampling, task.encode([task.sampling.negative_prompt]))
        return sample(
            task.model,
            task.encode([task.inputs(self.clips[item]) for _ in (0, 1) for item in items]),
            noise=draw_noise(self.shape, seeds, source.device),
            steps=task.sampling.steps,
            guidance=guidance,
            start=PartialStart(torch.cat([source, source]), self.first[items[0]]),
        )

    def _seeds(self, item: int) -> tuple[int, int]:
        key, seed = self.items[item].key, self.task.seed
        return derive_seed(seed, "guided", key, 0), derive_seed(seed, "guided", key, 1)

    def _first(self, item: int) -> int:
        """The chain's step whose noise level is nearest to ``eta ~ U(eta_min, eta_max)``."""
        settings = self.task.settings.guided
        generator = torch.Generator().manual_seed(derive_seed(self.task.seed, "eta", self.items[item].key))
        share = float(torch.rand((), generator=generator))
        eta = settings.eta_min + share * (settings.eta_max - settings.eta_min)
        return nearest_step(self.levels, eta)
