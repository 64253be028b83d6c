"""Reward fine-tuning through the sampler, the routine behind `instruct` and its baselines.

Denoise without gradient until the last steps, decode the frames that are looked at, and push the gradient of their
reward through those steps into the LoRA. Sources: InstructVideo (arXiv 2312.12490); DRaFT (arXiv 2309.17400),
AlignProp (arXiv 2310.03739) and VADER (arXiv 2407.08737) are the same routine with other settings.
Legend: ``B`` videos, ``F`` pixel frames, ``K`` frames looked at, latents ``[B, C, T, h, w]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vpo_kit import losses
from vpo_kit.errors import ConfigError
from vpo_kit.methods.base import Batch, Context, Method, MethodConfig, StepOutput
from vpo_kit.models.base import Conditions
from vpo_kit.sampler import Guidance, PartialStart, derive_seed, draw_noise, sample
from vpo_kit.video import motion


class EditingConfig(MethodConfig):
    """Settings of the routine. Defaults are InstructVideo's unless the description says otherwise."""

    start: Literal["clip", "noise"] = Field("clip", description="a real clip noised to tau, or pure noise")
    tau: float = Field(0.6, gt=0, le=1, description="share of the chain that is run from a clip")
    offset_noise: float = Field(0.1, ge=0, description="of a noise shared by all pixels of a latent frame")
    chain_steps: int | None = Field(None, ge=1, description="steps of the full chain (D); default: those of sampling")
    grad_steps: int = Field(1, ge=1, description="last steps that pass the gradient (K)")
    random_grad_steps: bool = Field(False, description="draw K from 1 to grad_steps at every step (AlignProp)")
    guidance_gradient: bool = Field(False, description="also through the unconditional branch; the paper has it on")
    segments: int = Field(4, ge=0, description="one random frame in each of so many equal segments; 0 is every frame")
    attenuation: Literal["normalised", "raw", "none"] = Field(
        "normalised", description="weights exp(-lambda |g - F/2|), in units of F/16 frames (ours) or raw"
    )
    attenuation_rate: float = Field(1.0, ge=0, description="lambda")
    reward_cap: float | None = Field(None, description="frames whose reward is above it give no gradient; ours")
    anchor: float = Field(0.0, ge=0, description="weight of the squared distance to the reference's prediction; ours")


class Editing(Method):
    """The routine; a preset is a child with another `Config`."""

    config: EditingConfig

    def __init__(self, config: EditingConfig, context: Context) -> None:
        super().__init__(config, context)
        self._steps = config.chain_steps or context.sampling.steps
        self._check_reach()

    def step(self, batch: Batch) -> StepOutput:
        context, seed = self.context, self.context.seed
        noise = self._noise([derive_seed(seed, "edit", batch.step, p) for p in batch.positions])
        frames = self._frames(derive_seed(seed, "frames", batch.step))
        entering: list[Tensor] = []
        latents = self._denoise(batch, noise, self._grad_steps(batch.step), entering)
        rewards, video = self._rewards(latents, frames, batch.prompts)
        weights = self._weights(frames).to(rewards)
        capped = rewards if self.config.reward_cap is None else rewards.clamp(max=self.config.reward_cap)
        total = context.processes.total(torch.tensor(len(rewards))).to(rewards)
        loss = -(capped * weights).mean(1).sum() / total
        report = {
            "reward_mean": float(rewards.detach().mean()),
            "reward_std": float(rewards.detach().mean(1).std(correction=0)),
        }
        if video.shape[1] == context.sampling.frames:
            report["motion"] = float(motion(video.detach()).mean())
        if self.config.anchor:
            if not entering:
                raise ConfigError("method.anchor needs a chain of at least two steps: raise tau or chain_steps")
            distance = self._distance(entering[-1], batch.conditions)
            loss = loss + self.config.anchor * distance.sum() / total
            report["anchor"] = float(distance.detach().mean())
        return StepOutput(loss, report)

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Reward (of each segment's first frame, as in the paper), held-out judges and motion of edits of held-out
        items, from the same noises every time.
        """
        rows: dict[str, list[Tensor]] = {}
        fps, reward = self.context.sampling.fps, self.context.reward
        assert reward is not None
        for batch in batches:
            noise = self._noise([derive_seed(self.context.seed, "held out", i) for i in batch.indices])
            video = self.context.policy.model.decode(self._denoise(batch, noise, 0, []))
            found = {f"heldout_{j.spec.name}": j(video, batch.prompts, fps=fps).score for j in self.context.judges}
            looked = [(frame, frame + 1) for frame in self._bounds()[:-1]]
            scored = reward.fixed(video, batch.prompts, fps=fps, segments=looked)
            assert scored.segments is not None
            found["heldout_reward"] = scored.segments.mean(1)
            found["heldout_motion"] = motion(video)
            for name, values in found.items():
                row = torch.stack([values.double().sum().cpu(), torch.tensor(len(video))])
                rows.setdefault(name, []).append(torch.zeros_like(row) if batch.filler else row)
        sums = {name: torch.stack(values).sum(0) for name, values in sorted(rows.items())}
        totals = {name: self.context.processes.total(value).tolist() for name, value in sums.items()}
        return {name: value / count for name, (value, count) in totals.items()}

    @property
    def _first(self) -> int:
        """The step of the chain at which it starts."""
        return self._steps - max(1, round(self.config.tau * self._steps)) if self.config.start == "clip" else 0

    def _check_reach(self) -> None:
        """Raises `ConfigError` where a trained network has none of the steps that pass the gradient: of two experts the
        last steps of a chain belong to one.
        """
        policy, settings = self.context.policy, self.context.sampling
        if len(policy.model.networks) == 1:
            return
        shape = policy.model.latent_shape(settings.frames, settings.height, settings.width)
        times = policy.model.new_scheduler(self._steps, shape).timesteps[self._first :][-self.config.grad_steps :]
        for name in policy.networks:
            if not policy.model.belongs(times, name).any():
                others = [e for n, e in policy.model.experts.items() if policy.model.belongs(times, n).any()]
                raise ConfigError(
                    f"the last {len(times)} steps, which pass the gradient, have none of {policy.model.experts[name]}: "
                    f"set lora.experts to {others[0]}, or raise method.grad_steps"
                )

    def _noise(self, seeds: Sequence[int]) -> Tensor:
        settings, model = self.context.sampling, self.context.policy.model
        shape = model.latent_shape(settings.frames, settings.height, settings.width)
        noise = draw_noise(shape, seeds, model.device)
        if self.config.start == "noise" or not self.config.offset_noise:
            return noise
        offsets = draw_noise((*shape[:2], 1, 1), [derive_seed(seed, "offset") for seed in seeds], model.device)
        return noise + self.config.offset_noise * offsets

    def _denoise(self, batch: Batch, noise: Tensor, grad_steps: int, entering: list[Tensor]) -> Tensor:
        """Clean latents; `entering` gets what goes into the last step, without graph."""
        config = self.config
        start = PartialStart(batch.tensors["clip"], self._first) if config.start == "clip" else None
        last = self._steps - (start.first if start else 0) - 1

        def watch(i: int, latents: Tensor) -> None:
            if i == last - 1:
                entering.append(latents.detach())

        guidance = Guidance(
            self.context.sampling.guidance, self.context.negative, detached=not config.guidance_gradient
        )
        return sample(
            self.context.policy.model,
            batch.conditions,
            noise=noise,
            steps=self._steps,
            guidance=guidance,
            start=start,
            grad_steps=grad_steps,
            callback=watch,
        )

    def _frames(self, seed: int) -> list[int]:
        """Pixel frames that are looked at in this step: one uniformly random frame of each segment."""
        bounds = self._bounds()
        drawn = torch.rand(len(bounds) - 1, generator=torch.Generator().manual_seed(seed)).tolist()
        return [low + int(share * (high - low)) for low, high, share in zip(bounds, bounds[1:], drawn, strict=False)]

    def _bounds(self) -> list[int]:
        """Where the segments begin, and the clip's end; every frame is a segment where none are asked for."""
        count = self.context.sampling.frames
        segments = min(self.config.segments or count, count)
        return [round(i * count / segments) for i in range(segments + 1)]

    def _weights(self, frames: Sequence[int]) -> Tensor:
        """``f = exp(-lambda |g - F/2|)`` for each frame looked at, ``[K]``."""
        count = self.context.sampling.frames
        if self.config.attenuation == "none":
            return torch.ones(len(frames))
        unit = 16 / count if self.config.attenuation == "normalised" else 1.0
        distance = (torch.tensor(frames, dtype=torch.float32) - count / 2).abs() * unit
        return torch.exp(-self.config.attenuation_rate * distance)

    def _rewards(self, latents: Tensor, frames: Sequence[int], prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """A reward for each frame looked at, ``[B, K]``, and the frames that were decoded.

        Rewards of single frames need no other frame. A reward of videos sees the whole clip, and each frame's share in
        its score is that of a segment of one frame.
        """
        reward, model = self.context.reward, self.context.policy.model
        assert reward is not None
        alone = all(part.spec.per_frame for part in reward.parts)

        # not checkpointed: a second decode would only free the graph of the reward, the smaller one by far
        video = model.decode(latents, frames if alone else None)
        places = range(len(frames)) if alone else frames
        found = reward.fixed(
            video, prompts, fps=self.context.sampling.fps, segments=[(place, place + 1) for place in places]
        )
        assert found.segments is not None
        return found.segments, video

    def _distance(self, x_t: Tensor, conditions: Conditions) -> Tensor:
        """Mean squared distance of policy and reference at the input of the last step, ``[B]``."""
        policy = self.context.policy
        scheduler = policy.model.new_scheduler(self._steps, x_t.shape[1:])
        t = scheduler.timesteps[-1].to(x_t.device).expand(len(x_t))
        with torch.no_grad(), policy.reference():
            reference = policy.model.predict(x_t, t, conditions)
        return losses.frame_errors(policy.model.predict(x_t, t, conditions), reference).mean(1)

    def _grad_steps(self, step: int) -> int:
        if not self.config.random_grad_steps:
            return self.config.grad_steps
        generator = torch.Generator().manual_seed(derive_seed(self.context.seed, "truncation", step))
        return 1 + int(torch.randint(self.config.grad_steps, (), generator=generator))
