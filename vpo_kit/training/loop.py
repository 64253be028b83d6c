"""The one loop. It draws prompts, asks the method for a loss, steps, logs, checks and saves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from vpo_kit.config import Run
from vpo_kit.errors import HealthError
from vpo_kit.methods.base import Batch, Method
from vpo_kit.models.base import Conditions, VideoModel
from vpo_kit.sampler import derive_seed
from vpo_kit.training import checkpoints, health
from vpo_kit.training.checkpoints import Checkpoint
from vpo_kit.training.folder import RunFolder
from vpo_kit.training.lora import LoraPolicy

Report = dict[str, float]


class PromptCache:
    """Each prompt's encoding, made when it is first needed and then kept."""

    def __init__(self, model: VideoModel) -> None:
        self._model = model
        self._known: dict[str, Conditions] = {}

    def __call__(self, prompts: Sequence[str]) -> Conditions:
        new = [p for p in dict.fromkeys(prompts) if p not in self._known]
        if new:
            encoded = self._model.encode_prompts(new)
            self._known.update({p: encoded[i : i + 1] for i, p in enumerate(new)})
        return Conditions.cat([self._known[p] for p in prompts])


@dataclass(frozen=True)
class PromptStream:
    """Prompts in shuffled passes over the file: batch ``i`` depends on the seed and ``i`` alone."""

    prompts: Sequence[str]
    per_batch: int
    seed: int

    def __getitem__(self, index: int) -> list[str]:
        start = index * self.per_batch
        return [self._at(position) for position in range(start, start + self.per_batch)]

    def _at(self, position: int) -> str:
        count = len(self.prompts)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "prompts", position // count))
        order = torch.randperm(count, generator=generator)
        return self.prompts[int(order[position % count])]


def train(
    run: Run,
    method: Method,
    policy: LoraPolicy,
    stream: PromptStream,
    encode: PromptCache,
    folder: RunFolder,
    *,
    on_step: Callable[[Report], None],
    on_notice: Callable[[str], None],
) -> list[Report]:
    """Train to ``run.steps``, from the newest checkpoint in `folder` where there is one; returns the log's rows.

    Raises `HealthError` when a check stops the run; the state of that moment is then the newest checkpoint.
    """
    accelerator = Accelerator()
    settings = run.optimiser
    optimiser = torch.optim.AdamW(policy.parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    optimiser = accelerator.prepare(optimiser)
    first = _resume(method, policy, optimiser, folder, on_notice)
    history: list[Report] = folder.rewind(first)
    batch: Batch | None = None
    for step in range(first, run.steps):
        if batch is None or step % method.updates_per_batch == 0:
            prompts = stream[step // method.updates_per_batch]
            conditions = encode(prompts)
        batch = Batch(step, prompts, conditions)
        output = method.step(batch)
        _must_be_finite("loss", output.loss, batch, run)
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * min(1.0, (step + 1) / (settings.warmup_steps + 1))
        accelerator.backward(output.loss)
        norm = accelerator.clip_grad_norm_(policy.parameters, settings.max_grad_norm)
        _must_be_finite("gradient", norm, batch, run)
        optimiser.step()
        optimiser.zero_grad()
        row = {"step": step + 1, "loss": float(output.loss.detach()), "grad_norm": float(norm)}
        row |= sorted(output.report.items())
        history.append(row)
        try:
            health.check(history, run.health)
        except HealthError:
            _save(step + 1, method, policy, optimiser, folder, run)
            raise
        finally:
            folder.append({k: v for k, v in row.items() if math.isfinite(v)})
        on_step(row)
        if (step + 1) % run.checkpoints.every == 0 or step + 1 == run.steps:
            _save(step + 1, method, policy, optimiser, folder, run)
    return history


def _must_be_finite(what: str, value: Tensor, batch: Batch, run: Run) -> None:
    """Before the optimiser's step: afterwards the weights would be lost, and the next checkpoint with them."""
    if not torch.isfinite(value) and "not_finite" not in run.health.disable:
        shown = "; ".join(repr(prompt) for prompt in batch.prompts[:3])
        raise HealthError(
            "not_finite", f"step {batch.step + 1}: the {what} is {float(value)}; prompts {shown}; no weight was changed"
        )


def _resume(
    method: Method,
    policy: LoraPolicy,
    optimiser: torch.optim.Optimizer,
    folder: RunFolder,
    on_notice: Callable[[str], None],
) -> int:
    found = checkpoints.latest(folder.checkpoints)
    if found is None:
        return 0
    state, damaged = found
    for line in damaged:
        on_notice(f"{line}: going on from step {state.step}")
    policy.load_state(state.policy, state.reference)
    method.load_state({k: v.to(policy.model.device) for k, v in state.method.items()})
    optimiser.load_state_dict(state.optimiser)
    return state.step


def _save(
    step: int, method: Method, policy: LoraPolicy, optimiser: torch.optim.Optimizer, folder: RunFolder, run: Run
) -> None:
    state = Checkpoint(
        step=step,
        policy=policy.state(),
        reference=policy.reference_state(),
        method={k: v.cpu() for k, v in method.state().items()},
        optimiser=optimiser.state_dict(),
    )
    checkpoints.save(folder.checkpoints, state, run.checkpoints.keep)
