"""What the methods that learn from fresh videos share: candidates, their rewards, and what outlives a kill.

A child says which of the candidates it goes on with (`select`) and what one optimiser step does with them (`update`).
Legend: ``P`` prompts, ``n`` candidates each, latents ``[P * n, C, T, h, w]``; rows of one prompt follow each other.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit.errors import ConfigError
from vpo_kit.methods.base import Batch, Context, Method, MethodConfig, StepOutput
from vpo_kit.models import step_cache
from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.passes import lower_dtype, lowered
from vpo_kit.run_sections import Levels
from vpo_kit.sampler import PartialStart, chain_levels, derive_seed, draw_noise, nearest_step, sample
from vpo_kit.video import motion


class RolloutConfig(MethodConfig):
    """Settings of the rollouts."""

    num_candidates: int = Field(4, ge=2, description="videos for each prompt (n)")
    rollout_steps: int | None = Field(
        None, ge=1, description="denoising steps of a rollout; default: those of sampling"
    )
    rollout_guidance: float | None = Field(
        None, ge=1, description="guidance scale of a rollout, 1 is off; default: that of sampling"
    )
    rollout_guidance_interval: Levels | None = Field(
        None, description="noise levels of a rollout's guided steps; default: those of sampling"
    )
    rollout_decoder: Literal["autoencoder", "preview"] = Field(
        "autoencoder",
        description="what candidates are decoded with to be judged: preview is the small decoder of a "
        "model folder that has one",
    )
    rollout_cache: float | None = Field(
        None,
        gt=0,
        description="skip all blocks but the first in steps where that one's residual has changed by less than this "
        "share (diffusers' first-block cache); default: none is skipped",
    )
    rollout_dtype: Literal["auto", "bfloat16"] | None = Field(
        None,
        description="precision of the candidates' passes through the network (torch.autocast); weights and latents "
        "stay as they are; auto is bfloat16 where the device has instructions for it; default: that of the model",
    )
    branch: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="noise level from which the candidates of a prompt part: they are one sample, "
        "noised to it afresh; a solver of several steps begins anew there; default: apart from the start",
    )
    rewards: Literal["decoupled", "summed"] = Field(
        "decoupled",
        description="several rewards: each normalised among a prompt's candidates and then added (GDPO's "
        "and DanceGRPO's), or added on fixed scales, so that what is normalised is their sum (GRPO's)",
    )
    updates_per_rollout: int = Field(2, ge=1, description="optimiser steps for each fresh batch; not in the papers")


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The videos of one rollout: `latents`, `scores` ``[P, n]`` and `motion` ``[P * n]``; `conditions` and `positions`
    are those of the prompts. `kept` is what a child's own sampling has kept of each candidate.
    """

    latents: Tensor
    scores: Tensor
    motion: Tensor
    conditions: Conditions
    positions: Sequence[int]
    report: dict[str, float]
    kept: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Fresh:
    """What this process goes on with for one or more optimiser steps: named tensors and conditions of items, whose
    `numbers` are their places in the global batch.
    """

    tensors: dict[str, Tensor]
    numbers: Tensor
    conditions: Conditions
    report: dict[str, float]

    def state(self) -> dict[str, Tensor]:
        conditions = {f"conditions.{k}": v for k, v in self.conditions.tensors.items()}
        return {key: value.cpu() for key, value in {**self.tensors, "numbers": self.numbers, **conditions}.items()}


class FromRollouts(Method):
    """Sample with the model as it is, judge, and learn from what was judged."""

    config: RolloutConfig

    def __init__(self, config: RolloutConfig, context: Context) -> None:
        super().__init__(config, context)
        settings, model = context.sampling, context.policy.model
        settings = settings.changed(
            guidance=config.rollout_guidance, guidance_interval=config.rollout_guidance_interval
        )
        self._guidance = model.guidance(settings, context.negative)
        self._steps = config.rollout_steps or settings.steps
        self._first = 0  # of whatever shape: where a chain's shift follows the size, the run's own videos say it
        if config.branch is not None:
            own = model.latent_shape(*settings.size)
            self._first = nearest_step(chain_levels(model, self._steps, own), config.branch)
        self._fresh: Fresh | None = None

    @classmethod
    def check_model(cls, config: Any, model: VideoModel) -> None:
        if config.rollout_decoder == "preview" and model.preview is None:
            raise ConfigError(
                f"method.rollout_decoder=preview: {model.source} has no preview_decoder in its folder: leave it out"
            )
        if config.rollout_cache is not None:
            step_cache.check(model)

    @classmethod
    def updates(cls, config: Any) -> int:
        found: int = config.updates_per_rollout
        return found

    @property
    @abstractmethod
    def per_prompt(self) -> int:
        """How many items a prompt has room for in the global batch: item ``number`` is of prompt ``number // it``."""

    @abstractmethod
    def select(self, candidates: Candidates) -> Fresh:
        """The items of a rollout, with what is reported of it."""

    @abstractmethod
    def update(self, fresh: Fresh, step: int) -> StepOutput:
        """The loss of one optimiser step on them."""

    def prepare(self, step: int) -> None:
        """What comes before a rollout."""

    def sampling(self) -> AbstractContextManager[None]:
        """Inside, the model is the one that candidates are sampled with: the policy as it is."""
        return nullcontext()

    def step(self, batch: Batch) -> StepOutput:
        if self._fresh is None or batch.step % self.updates_per_batch == 0:
            self.prepare(batch.step)
            self._fresh = self._roll_out(batch)
        fresh = self._fresh
        output = self.update(fresh, batch.step)
        output.report.update(fresh.report)  # in place: what the update reports may come with its last part
        return output

    @torch.no_grad()
    def _roll_out(self, batch: Batch) -> Fresh:
        """Sample n candidates for each prompt, judge them, and select."""
        context, n = self.context, self.config.num_candidates
        prompts = [prompt for prompt in batch.prompts for _ in range(n)]
        with self.sampling():
            latents, video, kept = self._sample(batch)
        assert context.reward is not None
        decoupled = self.config.rewards == "decoupled"
        scored = context.reward(video, prompts, fps=context.sampling.fps, group=n, decoupled=decoupled)
        scores, moved = scored.score.view(-1, n), motion(video)
        raw = {f"reward/{name}": float(value.mean()) for name, value in scored.components.items()}
        report = {
            "reward_mean": float(scores.mean()),
            "reward_std": float(scores.std(1).mean()),
            "reward_margin": float((scores.amax(1) - scores.amin(1)).mean()),
            "motion": float(moved.mean()),
            **self._read(video, prompts),
            **(raw if len(raw) > 1 else {}),
            **scored.report,
        }
        return self.select(
            Candidates(
                latents=latents,
                scores=scores,
                motion=moved,
                conditions=batch.conditions,
                positions=batch.positions,
                report=report,
                kept=kept,
            )
        )

    def _read(self, video: Tensor, prompts: Sequence[str]) -> dict[str, float]:
        """What is reported of the words that candidates show; the rollout's clips are shared out over its steps."""
        words = self.context.text(video, prompts)
        if words is None:
            return {}
        clips = len(words) * self.context.processes.count / self.updates_per_batch
        return {"text_accuracy": float(words.mean()), "text_clips": clips}

    def _sample(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Latents and video of all candidates, at most `sampling_batch_size` at once, and what is kept of each."""
        model, n, latents, videos = self.context.policy.model, self.config.num_candidates, [], []
        decode = model.look if self.config.rollout_decoder == "preview" else model.decode
        trunks = self._trunks(batch)
        seeds = [
            derive_seed(self.context.seed, "rollout", batch.step, position * n + i)
            for position in batch.positions
            for i in range(n)
        ]
        conditions, kept = batch.conditions.repeat(n), list[dict[str, Tensor]]()
        firsts, shape = self.first_seeds(batch, seeds), model.latent_shape(*batch.settings.size)
        for rows in self._runs(len(seeds)):
            noise = draw_noise(shape, firsts[rows], model.device)
            start = None
            if trunks is not None:
                start = PartialStart(trunks.repeat_interleave(n, 0)[rows], self._first)
            with self._cheaper():
                found, parts = self.denoise(conditions[rows], noise, seeds[rows], start)
            found = conditions[rows].held(found)
            latents.append(found)
            kept.append(parts)
            videos.append(decode(found))
        joined = {key: torch.cat([part[key] for part in kept]) for key in kept[0]}
        return torch.cat(latents), torch.cat(videos), joined

    def first_seeds(self, batch: Batch, seeds: Sequence[int]) -> Sequence[int]:
        """The seeds of the candidates' first noises: by default each candidate's own, `seeds`."""
        return seeds

    def denoise(
        self, conditions: Conditions, noise: Tensor, seeds: Sequence[int], start: PartialStart | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Clean latents of one run of candidates, and what a child keeps of each."""
        model = self.context.policy.model
        found = sample(model, conditions, noise=noise, steps=self._steps, guidance=self._guidance, start=start)
        return found, {}

    def _trunks(self, batch: Batch) -> Tensor | None:
        """The sample ``[P, C, T, h, w]`` that the candidates of each prompt branch off, or None."""
        if self.config.branch is None:
            return None
        model, seed, trunks = self.context.policy.model, self.context.seed, []
        shape = model.latent_shape(*batch.settings.size)
        for rows in self._runs(len(batch.positions)):
            seeds = [derive_seed(seed, "trunk", batch.step, position) for position in batch.positions[rows]]
            noise = draw_noise(shape, seeds, model.device)
            part = batch.conditions[rows]
            with self._cheaper():
                trunks.append(sample(model, part, noise=noise, steps=self._steps, guidance=self._guidance))
        return torch.cat(trunks)

    @contextmanager
    def _cheaper(self) -> Iterator[None]:
        """Inside, passes of the chain cost less, as far as the settings ask for it."""
        model, config = self.context.policy.model, self.config
        dtype = {None: None, "bfloat16": torch.bfloat16, "auto": lower_dtype(model.device)}[config.rollout_dtype]
        with lowered(model, dtype), step_cache.step_cache(model, config.rollout_cache):
            yield

    def _runs(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self.context.sampling_batch_size):
            yield slice(start, start + self.context.sampling_batch_size)

    def state(self) -> dict[str, Tensor]:
        """The items in use by all processes, in the global order, where the next step goes on with them."""
        if self._fresh is None:
            return {}
        everyone = self.context.processes.gather([self._fresh.state()])
        order = torch.cat([part["numbers"] for part in everyone]).argsort()
        joined = {key: torch.cat([part[key] for part in everyone])[order] for key in everyone[0]}
        means = self.context.processes.mean(self._fresh.report)
        return {**joined, **{f"report.{k}": torch.tensor(v, dtype=torch.float64) for k, v in means.items()}}

    def load_state(self, state: dict[str, Tensor]) -> None:
        if "numbers" not in state:
            return
        processes, numbers = self.context.processes, state["numbers"].cpu()
        own = (numbers // self.per_prompt % processes.count == processes.rank).nonzero().flatten()
        bare = {key: value[own] for key, value in state.items() if "." not in key and key not in OTHER}
        report = {key: float(value) for key, value in _under("report.", state).items()}
        self._fresh = Fresh(bare, numbers[own], self.conditions_of(state)[own], report)

    def conditions_of(self, state: dict[str, Tensor]) -> Conditions:
        """Those of all items of a saved state."""
        return Conditions(_under("conditions.", state))


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


OTHER = {"numbers", "moved"}
"""Names in a saved state that are no tensors of items."""
