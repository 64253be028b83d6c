"""Reward fine-tuning through the sampler, the routine behind `instruct` and its baselines.

Denoise without gradient until the last steps, decode the frames that are looked at, and push the gradient of their
reward through those steps into the LoRA. Sources: InstructVideo (arXiv 2312.12490); DRaFT (arXiv 2309.17400),
AlignProp (arXiv 2310.03739) and VADER (arXiv 2407.08737) are the same routine with other settings.
Legend: ``B`` videos, ``F`` pixel frames, ``K`` frames looked at, latents ``[B, C, T, h, w]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vpo_kit import losses
from vpo_kit.errors import ConfigError
from vpo_kit.methods.base import Batch, Context, Method, MethodConfig, StepOutput, runs
from vpo_kit.methods.stages import in_parts
from vpo_kit.models.conditions import Conditions
from vpo_kit.sampler import PartialStart, chain_levels, derive_seed, draw_noise, nearest_step, sample
from vpo_kit.video import motion


class EditingConfig(MethodConfig):
    """Settings of the routine. Defaults are InstructVideo's unless the description says otherwise."""

    start: Literal["clip", "noise"] = Field("clip", description="a real clip noised to tau, or pure noise")
    tau: float = Field(
        0.66,
        gt=0,
        le=1,
        description="noise level that a clip is noised to: the chain's own nearest; the paper's",
    )
    offset_noise: float = Field(0.1, ge=0, description="of a noise shared by all pixels of a latent frame")
    chain_steps: int | None = Field(None, ge=1, description="steps of the full chain (D); default: those of sampling")
    grad_steps: int = Field(1, ge=1, description="steps of the chain that pass the gradient (K)")
    random_grad_steps: bool = Field(False, description="draw K from 1 to grad_steps at every step (AlignProp)")
    grad_at: Literal["last", "random"] | list[int] = Field(
        "last", description="which steps: the last K, K random ones, or these (0 is the first, -1 the last that is run)"
    )
    guidance_gradient: bool = Field(False, description="also through the unconditional branch; the paper has it on")
    segments: int = Field(4, ge=0, description="one random frame in each of so many equal segments; 0 is every frame")
    attenuation: Literal["normalised", "raw", "none"] = Field(
        "normalised", description="weights exp(-lambda |g - F/2|), in units of F/16 frames (ours) or raw"
    )
    attenuation_rate: float = Field(1.0, ge=0, description="lambda")
    reward_cap: float | None = Field(None, description="frames whose reward is above it give no gradient; ours")
    anchor: float = Field(0.0, ge=0, description="weight of the squared distance to the reference's prediction; ours")

    @model_validator(mode="after")
    def _one_choice(self) -> EditingConfig:
        if isinstance(self.grad_at, list) and (not self.grad_at or self.random_grad_steps or self.grad_steps != 1):
            raise ValueError("grad_at names the steps: it must not be empty, and grad_steps must be left out")
        if self.grad_at == "random" and self.random_grad_steps:
            raise ValueError("random_grad_steps draws how many of the last steps, grad_at random which: give one")
        return self


class Editing(Method):
    """The routine; a preset is a child with another `Config`."""

    config: EditingConfig

    def __init__(self, config: EditingConfig, context: Context) -> None:
        super().__init__(config, context)
        self._steps = config.chain_steps or context.sampling.steps
        self._entries: dict[Sequence[int], int] = {}
        self._check_reach(context.policy.model.latent_shape(*context.sampling.size))

    def step(self, batch: Batch) -> StepOutput:
        """Items are apart from each other, so any run of them gives its share of the gradient by itself."""
        rows = runs(len(batch.prompts), self.context.micro_batch_size)
        report: dict[str, float] = {}
        if len(rows) == 1:
            return StepOutput(loss=next(self._parts(batch, rows, report)), report=report)
        return StepOutput(loss=None, report=report, parts=self._parts(batch, rows, report))

    def _parts(self, batch: Batch, rows: Sequence[slice], report: dict[str, float]) -> Iterator[Tensor]:
        """The loss of each run of items; `report` is that of the whole batch when the last one is asked for."""
        seen: list[dict[str, Tensor]] = []
        frames = self._frames(derive_seed(self.context.seed, "frames", batch.step), batch.settings.frames)
        for part in rows:
            loss, found = self._part(batch.part(part), frames)
            seen.append(found)
            if len(seen) == len(rows):
                report.update(_report({key: torch.cat([found[key] for found in seen]) for key in seen[0]}))
            yield loss

    def _part(self, batch: Batch, frames: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """This share of the loss with its graph, and what is reported of each item."""
        context = self.context
        noise = self._noise(batch, [derive_seed(context.seed, "edit", batch.step, p) for p in batch.positions])
        entering: list[Tensor] = []
        count = self._steps - self._entry(noise.shape[1:])
        latents = self._denoise(batch, noise, self._grad_steps(batch.step, count), entering)
        loss, found = self._rewarded(latents, frames, batch)
        if self.config.anchor:
            if not entering:
                raise ConfigError("method.anchor needs a chain of at least two steps: raise tau or chain_steps")
            distance = self._distance(entering[-1], batch.conditions)
            loss = loss + self.config.anchor * distance.sum() / context.batch_size
            found["anchor"] = distance.detach()
        return loss, found

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Reward (of each segment's first frame, as in the paper), held-out judges and motion of edits of held-out
        items, from the same noises every time.
        """
        rows: dict[str, list[Tensor]] = {}
        reward = self.context.reward
        assert reward is not None
        for batch in batches:
            fps = batch.settings.fps
            noise = self._noise(batch, [derive_seed(self.context.seed, "held out", i) for i in batch.indices])
            video = self.context.policy.model.decode(self._denoise(batch, noise, 0, []))
            found = {f"heldout_{j.spec.name}": j(video, batch.prompts, fps=fps).score for j in self.context.judges}
            looked = [(frame, frame + 1) for frame in self._bounds(batch.settings.frames)[:-1]]
            scored = reward.fixed(video, batch.prompts, fps=fps, segments=looked)
            assert scored.segments is not None
            found["heldout_reward"] = scored.segments.mean(1)
            found["heldout_motion"] = motion(video)
            if (words := self.context.text(video, batch.prompts)) is not None:
                found["heldout_text_accuracy"] = words
            for name, values in found.items():
                row = torch.stack([values.double().sum().cpu(), torch.tensor(len(video))])
                rows.setdefault(name, []).append(torch.zeros_like(row) if batch.filler else row)
        sums = {name: torch.stack(values).sum(0) for name, values in sorted(rows.items())}
        totals = {name: self.context.processes.total(value).tolist() for name, value in sums.items()}
        return {name: value / count for name, (value, count) in totals.items()}

    def _entry(self, shape: Sequence[int]) -> int:
        """The step at which chains for latents of `shape` ``(C, T, h, w)`` are entered."""
        if self.config.start == "noise":
            return 0
        shape = tuple(shape)
        if shape not in self._entries:
            levels = chain_levels(self.context.policy.model, self._steps, shape)
            self._entries[shape] = nearest_step(levels, self.config.tau)
        return self._entries[shape]

    def _check_reach(self, shape: Sequence[int]) -> None:
        """Raises `ConfigError` for steps that the chain does not have, and where a trained network has none of those
        that pass the gradient: of two experts the last steps of a chain belong to one.
        """
        policy, config = self.context.policy, self.config
        times = policy.model.new_scheduler(self._steps, shape).timesteps[self._entry(shape) :]
        if isinstance(config.grad_at, list):
            if max(config.grad_at) >= len(times) or min(config.grad_at) < -len(times):
                raise ConfigError(f"method.grad_at: the chain runs {len(times)} steps, so it has no {config.grad_at}")
            times = times[config.grad_at]
        elif config.grad_at == "last":
            times = times[-config.grad_steps :]
        if len(policy.model.networks) == 1:
            return
        for name in policy.networks:
            if not policy.model.belongs(times, name).any():
                others = [e for n, e in policy.model.experts.items() if policy.model.belongs(times, n).any()]
                raise ConfigError(
                    f"the {len(times)} steps that pass the gradient have none of {policy.model.experts[name]}: "
                    f"set lora.experts to {others[0]}, or raise method.grad_steps"
                )

    def _noise(self, batch: Batch, seeds: Sequence[int]) -> Tensor:
        model = self.context.policy.model
        shape = model.latent_shape(*batch.settings.size)
        noise = draw_noise(shape, seeds, model.device)
        if self.config.start == "noise" or not self.config.offset_noise:
            return noise
        offsets = draw_noise((*shape[:2], 1, 1), [derive_seed(seed, "offset") for seed in seeds], model.device)
        return noise + self.config.offset_noise * offsets

    def _denoise(self, batch: Batch, noise: Tensor, grad_steps: int | Sequence[int], entering: list[Tensor]) -> Tensor:
        """Clean latents; `entering` gets what goes into the last step, without graph."""
        config, first = self.config, self._entry(noise.shape[1:])
        start = PartialStart(batch.tensors["clip"], first) if config.start == "clip" else None
        last = self._steps - (start.first if start else 0) - 1

        def watch(i: int, latents: Tensor) -> None:
            if i == last - 1:
                entering.append(latents.detach())

        model, context = self.context.policy.model, self.context
        count = grad_steps if isinstance(grad_steps, int) else len(grad_steps)
        guidance = model.guidance(context.sampling, context.negative, detached=not config.guidance_gradient)
        return sample(
            model,
            batch.conditions,
            noise=noise,
            steps=self._steps,
            guidance=guidance,
            start=start,
            grad_steps=grad_steps,
            again=count > 1 or model.checkpointed,  # one step's graph is no larger than any other method's
            callback=watch,
        )

    def _frames(self, seed: int, count: int) -> list[int]:
        """Pixel frames of `count` that are looked at in this step: one uniformly random frame of each segment."""
        bounds = self._bounds(count)
        drawn = torch.rand(len(bounds) - 1, generator=torch.Generator().manual_seed(seed)).tolist()
        return [low + int(share * (high - low)) for low, high, share in zip(bounds, bounds[1:], drawn, strict=False)]

    def _bounds(self, count: int) -> list[int]:
        """The frames of `count` at which the segments begin, and the clip's end; every frame is a segment where none
        are asked for.
        """
        segments = min(self.config.segments or count, count)
        return [round(i * count / segments) for i in range(segments + 1)]

    def _weights(self, frames: Sequence[int], count: int) -> Tensor:
        """``f = exp(-lambda |g - F/2|)`` for each of the F frames, `count`, that are looked at, ``[K]``."""
        if self.config.attenuation == "none":
            return torch.ones(len(frames))
        unit = 16 / count if self.config.attenuation == "normalised" else 1.0
        distance = (torch.tensor(frames, dtype=torch.float32) - count / 2).abs() * unit
        return torch.exp(-self.config.attenuation_rate * distance)

    def _rewarded(self, latents: Tensor, frames: Sequence[int], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """This share of the loss by the reward of each frame looked at, and what is reported of each item.

        Rewards of single frames need no other frame: each run of frames that are decoded together is judged and sent
        back by itself. A reward of videos sees the whole clip, and each frame's share in its score is that of a segment
        of one frame.
        """
        reward, context, cap = self.context.reward, self.context, self.config.reward_cap
        settings = batch.settings
        assert reward is not None
        alone = all(part.spec.per_frame for part in reward.parts)
        runs = [run for _, run in context.policy.model.frame_runs(frames)] if alone else [list(frames)]
        weights = dict(zip(frames, self._weights(frames, settings.frames).tolist(), strict=True))
        rewards: list[Tensor] = []
        found: dict[str, Tensor] = {}

        def loss_of(cut: Tensor, run: Sequence[int]) -> Tensor:
            # not checkpointed: a second decode would only free the graph of the reward, the smaller one by far
            video = context.policy.model.decode(cut, run if alone else None)
            looked = [(place, place + 1) for place in (range(len(run)) if alone else run)]
            seen = reward.fixed(video, batch.prompts, fps=settings.fps, segments=looked).segments
            assert seen is not None
            rewards.append(seen.detach())
            if video.shape[1] == settings.frames:
                found["motion"] = motion(video.detach())
                if (words := context.text(video, batch.prompts)) is not None:
                    found.update(text_accuracy=words, text_clips=torch.full_like(words, context.batch_size))
            capped = seen if cap is None else seen.clamp(max=cap)
            own = torch.tensor([weights[frame] for frame in run]).to(seen)
            return -(capped * own).sum() / (len(frames) * context.batch_size)

        loss = in_parts(latents, (partial(loss_of, run=run) for run in runs))
        return loss, {"reward": torch.cat(rewards, 1).mean(1), **found}

    def _distance(self, x_t: Tensor, conditions: Conditions) -> Tensor:
        """Mean squared distance of policy and reference at the input of the last step, ``[B]``."""
        policy = self.context.policy
        scheduler = policy.model.new_scheduler(self._steps, x_t.shape[1:])
        time = scheduler.timesteps[-1].to(x_t.device).expand(len(x_t))
        with torch.no_grad(), policy.reference():
            reference = policy.model.predict(x_t, time, conditions)
        return losses.output_distance(policy.model.predict(x_t, time, conditions), reference)

    def _grad_steps(self, step: int, count: int) -> int | Sequence[int]:
        """How many of the last steps pass the gradient, or which of the `count` that run."""
        config = self.config
        generator = torch.Generator().manual_seed(derive_seed(self.context.seed, "truncation", step))
        if isinstance(config.grad_at, list):
            return [number % count for number in config.grad_at]
        if config.grad_at == "random":
            return torch.randperm(count, generator=generator)[: config.grad_steps].tolist()
        if config.random_grad_steps:
            return 1 + int(torch.randint(config.grad_steps, (), generator=generator))
        return config.grad_steps


def _report(found: Mapping[str, Tensor]) -> dict[str, float]:
    """Means over the items of a batch, and the reward's spread."""
    spread = {"reward_std": float(found["reward"].std(correction=0))}
    return {("reward_mean" if key == "reward" else key): float(value.mean()) for key, value in found.items()} | spread
