"""Independent pairs: n videos of a prompt from independent noises, and the pairs that `choose` takes among them.

Legend: ``P`` prompts, ``n`` candidates, latents ``[P * n, C, T, h, w]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from vpo_kit import content
from vpo_kit.inputs import Inputs, inputs_of
from vpo_kit.pairing.choose import choose
from vpo_kit.pairing.job import Item, Job, Made, Outcome, Task, batches
from vpo_kit.rewards.base import Mixture
from vpo_kit.sampler import derive_seed, draw_noise, sample


class IndependentMaker:
    """One item is one prompt."""

    def __init__(self, task: Task, inputs: Sequence[str | Inputs], reward: Mixture | None) -> None:
        settings = task.sampling
        self.task = task
        self.inputs = [inputs_of(item) for item in inputs]
        keys = (content.key(item.prompt, *item.keys) for item in self.inputs)
        self.items = [Item(key) for key in content.distinct(keys)]
        self.reward = reward
        self.shape = task.model.latent_shape(settings.frames, settings.height, settings.width)

    def job(self) -> Job:
        options = self.task.settings
        size = options.sampling.batch_size // options.independent.num_candidates
        return Job("independent", self.items, list(batches(self.items, size)), self.make)

    def make(self, batch: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
        task, n = self.task, self.task.settings.independent.num_candidates
        inputs = [self.inputs[item] for item in batch for _ in range(n)]
        prompts = [item.prompt for item in inputs]
        seeds = [derive_seed(task.seed, "independent", self.items[item].key, k) for item in batch for k in range(n)]
        latents = sample(
            task.model,
            task.encode(inputs),
            noise=draw_noise(self.shape, seeds, task.model.device),
            steps=task.sampling.steps,
            guidance=task.model.guidance(task.sampling, task.encode([task.sampling.negative_prompt])),
        )
        video = task.model.decode(latents)
        scores = self.reward(video, prompts, fps=task.sampling.fps, group=n).score.cpu() if self.reward else None
        video = video.cpu()
        for row, item in enumerate(batch):
            rows = range(row * n, row * n + n)
            pairs = self._pairs(None if scores is None else scores[rows.start : rows.stop])
            made = [
                Made(
                    prompt=self.inputs[item].prompt,
                    first=video[rows[i]],
                    second=video[rows[j]],
                    latents={"first": latents[rows[i]], "second": latents[rows[j]]},
                    seeds=(seeds[rows[i]], seeds[rows[j]]),
                    mark=f"-{i}-{j}",
                )
                for i, j in pairs
            ]
            yield item, made or f"prompt {self.inputs[item].prompt!r}: no two candidates differ by more than the margin"

    def _pairs(self, scores: Tensor | None) -> list[tuple[int, int]]:
        """Candidates to pair, in their own order: a winner that always came first would teach labellers a habit."""
        if scores is None:
            return [(0, 1)]
        chosen = choose(scores[None], self.task.settings.independent)
        found = zip(chosen.winners.tolist(), chosen.losers.tolist(), strict=True)
        return [(min(pair), max(pair)) for pair in found]
