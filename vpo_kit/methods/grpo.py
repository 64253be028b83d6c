"""Flow-GRPO (arXiv 2505.05470): policy gradients on the steps of a stochastic chain, with a clipped ratio.

``method.sde=constant``, ``method.same_start=true`` and ``method.step_share=0.6`` are DanceGRPO's choices (arXiv
2505.07818); with ``method.window`` only some steps in a row have noise and are trained, and the others are the
deterministic chain's (MixGRPO, arXiv 2507.21802). Models of the DDPM kind are sampled by DDIM with eta (DDPO,
arXiv 2305.13301). Legend: ``N`` candidates, ``S`` trained steps, rows are steps times candidates, step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vpo_kit.errors import ConfigError
from vpo_kit.methods.advantages import advantages, informative
from vpo_kit.methods.base import Batch, Context, MethodConfig, Needs, StepOutput, runs
from vpo_kit.methods.from_rollouts import Candidates, Fresh, FromRollouts, RolloutConfig
from vpo_kit.methods.moving import FollowsReference, Moving, MovingConfig
from vpo_kit.methods.rows import summed
from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.sampler import PartialStart, derive_seed, draw_noise, guided
from vpo_kit.schedule import DDPMSchedule
from vpo_kit.stochastic import Chain, Kind, Step


class GRPOConfig(RolloutConfig, MovingConfig):
    """Settings of `grpo`."""

    num_candidates: int = Field(8, ge=2, description="videos for each prompt (n)")
    sde: Kind = Field("flow", description="noise of a step: Flow-GRPO's a sqrt(t / (1 - t)), or DanceGRPO's constant")
    noise: float | None = Field(
        None, gt=0, description="how much of it: a, the constant, or DDIM's eta; default: 0.7, 0.3 or 1, the papers'"
    )
    clip: float = Field(1e-3, gt=0, description="by how much a ratio may leave 1 and still pass a gradient")
    max_advantage: float = Field(5.0, gt=0, description="advantages beyond it count as it")
    kl: float = Field(0.0, ge=0, description="weight of the divergence from the reference; the papers: 0 to 0.04")
    step_share: float = Field(1.0, gt=0, le=1, description="share of the noisy steps that are trained, drawn at random")
    window: int | None = Field(None, ge=1, description="so many steps in a row are noisy and trained, the others not")
    window_every: int = Field(25, ge=1, description="rollouts after which the window moves on by one step")
    same_start: bool = Field(False, description="the candidates of a prompt share their first noise")

    @model_validator(mode="after")
    def _one_choice(self) -> GRPOConfig:
        if self.window is not None and self.step_share != 1:
            raise ValueError("the steps of a window are all trained: leave step_share out")
        if self.rollout_cache is not None:
            raise ValueError("a step's likelihood is that of a whole pass: leave rollout_cache out")
        if self.rollout_dtype is not None:
            raise ValueError("a step's likelihood is that of the pass that is trained: leave rollout_dtype out")
        return self


class GRPO(FollowsReference, FromRollouts):
    """Every noisy step of a good candidate becomes more likely, and of a bad one less."""

    summary: ClassVar[str] = "Flow-GRPO, DanceGRPO, MixGRPO, DDPO: policy gradient, n fresh videos"
    needs: ClassVar[Needs] = Needs(data=("prompts",), reward="any", validation=False)
    retraces: ClassVar[bool] = True
    Config: ClassVar[type[MethodConfig]] = GRPOConfig
    config: GRPOConfig

    def __init__(self, config: GRPOConfig, context: Context) -> None:
        super().__init__(config, context)
        self._moving = Moving(context.policy)
        self._chains: dict[Sequence[int], Chain] = {}
        self._chain = self._chain_of(context.policy.model.latent_shape(*context.sampling.size))
        self._noisy: list[int] = []
        self._trained: list[int] = []
        self._allowed = self._reached()

    @classmethod
    def check_model(cls, config: Any, model: VideoModel) -> None:
        super().check_model(config, model)
        if isinstance(model.schedule, DDPMSchedule) and config.sde != "flow":
            raise ConfigError(
                "method.sde: the chain of this model is DDIM's, with method.noise as its eta: leave it out"
            )

    @property
    def notes(self) -> list[str]:
        return [self._chain.note] if self._chain.note else []

    @property
    def per_prompt(self) -> int:
        return self.config.num_candidates

    def prepare(self, step: int) -> None:
        """Draw the steps that have noise and those of them that are trained, for one rollout."""
        config, allowed = self.config, self._allowed
        if config.window is not None:
            places = max(len(allowed) - config.window, 0) + 1
            first = step // self.updates_per_batch // config.window_every % places
            self._noisy = self._trained = allowed[first : first + config.window]
            return
        self._noisy, count = allowed, max(1, round(config.step_share * len(allowed)))
        generator = torch.Generator().manual_seed(derive_seed(self.context.seed, "steps", step))
        drawn = torch.randperm(len(allowed), generator=generator)[:count].sort().values
        self._trained = [allowed[i] for i in drawn.tolist()]

    def first_seeds(self, batch: Batch, seeds: Sequence[int]) -> Sequence[int]:
        if not self.config.same_start:
            return seeds
        n, seed = self.config.num_candidates, self.context.seed
        return [derive_seed(seed, "group", batch.step, p) for p in batch.positions for _ in range(n)]

    def denoise(
        self, conditions: Conditions, noise: Tensor, seeds: Sequence[int], start: PartialStart | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The chain's first-order steps; of the trained ones it keeps where they began and ended, and how likely."""
        chain, x = self._chain_of(noise.shape[1:]), noise
        first, kept = start.first if start else 0, list[tuple[Tensor, Tensor, Tensor]]()
        if start is not None:
            schedule = self.context.policy.model.schedule
            x = schedule.add_noise(start.x, noise, chain.starts[first].to(x.device).expand(len(x)))
        for number in range(first, len(chain)):
            noisy = number in self._noisy
            found = self._go(number, x, conditions, noisy=noisy)
            new = found.mean
            if noisy:
                drawn = draw_noise(x.shape[1:], [derive_seed(seed, "step", number) for seed in seeds], x.device)
                new = found.mean + found.deviation * drawn
            if number in self._trained:
                kept.append((x, new, found.log_prob(new)))
            x = new
        names = ("x", "next", "likelihood")
        return x, {name: torch.stack(parts, 1) for name, parts in zip(names, zip(*kept, strict=True), strict=True)}

    def select(self, candidates: Candidates) -> Fresh:
        n, most = self.config.num_candidates, self.config.max_advantage
        found = advantages(candidates.scores).clamp(-most, most).flatten()
        numbers = (torch.tensor(candidates.positions)[:, None] * n + torch.arange(n)).flatten()
        steps = torch.tensor(self._trained, device=found.device).expand(len(found), -1)
        report = {**candidates.report, "informative": informative(candidates.scores)}
        tensors = {**candidates.kept, "advantage": found, "steps": steps}
        return Fresh(tensors, numbers, candidates.conditions.repeat(n), report)

    def update(self, fresh: Fresh, step: int) -> StepOutput:
        config, context = self.config, self.context
        self._moving.follow(step, config)
        have, steps = fresh.tensors, fresh.tensors["steps"][0].tolist()
        count, total = len(fresh.numbers), context.batch_size * config.num_candidates * len(steps)
        pieces = [(place, rows) for place in range(len(steps)) for rows in runs(count, context.micro_batch_size)]

        def part(piece: tuple[int, slice]) -> tuple[Tensor, dict[str, Tensor]]:
            place, rows = piece
            x, conditions = have["x"][rows, place], fresh.conditions[rows]
            went = self._go(steps[place], x, conditions)
            ratio = (went.log_prob(have["next"][rows, place]) - have["likelihood"][rows, place]).exp()
            loss, clipped = grpo_loss(ratio, have["advantage"][rows], config.clip)
            found = {"ratio_off": (ratio.detach() - 1).abs(), "ratio_clipped": clipped.float()}
            if config.kl:
                with torch.no_grad(), context.policy.reference():
                    reference = self._go(steps[place], x, conditions)
                apart = (went.mean - reference.mean).pow(2).mean((1, 2, 3, 4)) / (2 * went.deviation**2)
                loss, found["kl"] = loss + config.kl * apart, apart.detach()
            return loss.sum() / total, found

        return summed(pieces, part)

    def _go(self, number: int, x: Tensor, conditions: Conditions, *, noisy: bool = True) -> Step:
        """One step of the chain under the model as it is, with the rollout's guidance."""
        chain = self._chain_of(x.shape[1:])
        time = chain.times[number].to(x.device)
        prediction = guided(self.context.policy.model.predict, x, time, conditions, self._guidance)
        return chain.step(number, x, prediction, noisy=noisy)

    def _chain_of(self, shape: Sequence[int]) -> Chain:
        """The chain for latents of `shape` ``(C, T, h, w)``."""
        shape, config = tuple(shape), self.config
        if shape not in self._chains:
            self._chains[shape] = Chain(self.context.policy.model, self._steps, shape, config.sde, config.noise)
        return self._chains[shape]

    def _reached(self) -> list[int]:
        """Steps that may have noise: all but the last, whose noise would stay in the video (ours), that a trained
        network takes. Raises `ConfigError` where none is left.
        """
        policy, times, first = self.context.policy, self._chain.times, self._first
        found = [
            i
            for i in range(first, len(times) - 1)
            if any(bool(policy.model.belongs(times[i : i + 1], name)) for name in policy.networks)
        ]
        if len(found) < (self.config.window or 1):
            raise ConfigError(
                f"method.rollout_steps: {len(found)} steps of the chain can have noise (all but the last, from the "
                f"branch on, of a network that is trained), and {self.config.window or 1} are wanted: raise it"
            )
        return found

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), **self._moving.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self._moving.load_state(state)


def grpo_loss(ratio: Tensor, advantage: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """``-min(ratio A, clip(ratio, 1 - c, 1 + c) A)``, and where the clip has taken the gradient away, both ``[B]``."""
    held = ratio.clamp(1 - clip, 1 + clip)
    worth = torch.minimum(ratio * advantage, held * advantage)
    beyond = (ratio > 1 + clip) & (advantage > 0) | (ratio < 1 - clip) & (advantage < 0)
    return -worth, beyond
