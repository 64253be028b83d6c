"""Pairs that need no judge: a real clip, and what the model makes in its place.

``real`` (RealDPO, arXiv 2510.14955) holds the clip against a sample of its caption. ``local`` (LocalDPO, arXiv
2601.04068) holds it against a copy of which a part has been made anew: inside a mask the clip is noised and denoised,
and outside it follows its own noising at every step. The clip wins, always as the first member.
Legend: ``B`` clips, latents ``[B, C, T, h, w]``, masks ``[B, T, h, w]`` of 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vpo_kit.clips import Clip
from vpo_kit.pairing.job import Job, Made, Outcome, Task, batches, items_of
from vpo_kit.sampler import Constrain, PartialStart, chain_levels, derive_seed, draw_noise, nearest_step, sample
from vpo_kit.schedule import Schedule


class RealMaker:
    """One item is one clip; `local` says that only a part of it is made anew."""

    def __init__(self, task: Task, clips: Sequence[Clip], *, local: bool = False) -> None:
        settings = task.sampling
        self.task, self.clips, self.items = task, clips, items_of(clips)
        self.strategy = "local" if local else "real"
        self.shape = task.model.latent_shape(settings.frames, settings.height, settings.width)
        levels = chain_levels(task.model, settings.steps, self.shape)
        self.first = nearest_step(levels, task.settings.local.level) if local else 0
        self.level = float(levels[self.first])

    def job(self) -> Job:
        size = self.task.settings.sampling.batch_size
        return Job(self.strategy, self.items, list(batches(self.items, size)), self.make)

    def make(self, batch: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
        items, source, failed = self.task.sources(self.clips, batch)
        yield from failed
        if source is None:
            return
        made, masks = self._made(items, source)
        decoded = self.task.model.decode(torch.cat([source, made])).cpu()  # both went through the autoencoder
        for row, item in enumerate(items):
            parts = {"first": source[row], "second": made[row]}
            if masks is not None:
                parts["mask"] = masks[row]
            seed = self._seed(item)
            yield (
                item,
                [
                    Made(
                        prompt=self.clips[item].prompt,
                        first=decoded[row],
                        second=decoded[row + len(items)],
                        latents=parts,
                        seeds=(seed, seed),
                        eta=round(self.level, 6) if masks is not None else None,
                        label=1,
                    )
                ],
            )

    def _made(self, items: Sequence[int], source: Tensor) -> tuple[Tensor, Tensor | None]:
        """The losers, and where they differ from the clips."""
        task = self.task
        noise = draw_noise(self.shape, [self._seed(item) for item in items], source.device)
        guidance = task.model.guidance(task.sampling, task.encode([task.sampling.negative_prompt]))
        masks, start, constrain = None, None, None
        if self.strategy == "local":
            local = task.settings.local
            seeds = [derive_seed(task.seed, "mask", self.items[item].key) for item in items]
            drawn = [box_mask(self.shape[1:], local.least, local.most, seed) for seed in seeds]
            masks = torch.stack(drawn).to(source.device)
            start, constrain = PartialStart(source, self.first), outside(task.model.schedule, source, noise, masks)
        made = sample(
            task.model,
            task.encode([task.inputs(self.clips[item]) for item in items]),
            noise=noise,
            steps=task.sampling.steps,
            guidance=guidance,
            start=start,
            constrain=constrain,
        )
        return made, masks

    def _seed(self, item: int) -> int:
        return derive_seed(self.task.seed, self.strategy, self.items[item].key)


def box_mask(shape: Sequence[int], least: float, most: float, seed: int) -> Tensor:
    """A box of ones in ``[T, h, w]`` (ours; the paper draws free shapes): each side is a share of the whole between
    `least` and `most`, and at least one.
    """
    generator = torch.Generator().manual_seed(seed)
    mask, places = torch.zeros(tuple(shape)), []
    for length in shape:
        share, where = torch.rand(2, generator=generator).tolist()
        size = max(1, round((least + share * (most - least)) * length))
        start = round(where * (length - size))
        places.append(slice(start, start + size))
    mask[tuple(places)] = 1.0
    return mask


def outside(schedule: Schedule, x: Tensor, noise: Tensor, masks: Tensor) -> Constrain:
    """A constraint that holds what lies outside the masks to the clips `x`, noised to each step's own level."""
    inside = masks[:, None].bool()

    def constrain(latents: Tensor, t: Tensor | None) -> Tensor:
        own = x if t is None else schedule.add_noise(x, noise, t.to(x.device).expand(len(x)))
        return torch.where(inside, latents, own)

    return constrain
