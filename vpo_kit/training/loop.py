"""The one loop. It draws data, asks the method for a loss, steps, logs, validates, checks and saves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from vpo_kit.config import Run
from vpo_kit.errors import HealthError, VpoError, memory_full
from vpo_kit.methods.base import Batch, Method, StepOutput
from vpo_kit.models.activations import kept_away
from vpo_kit.processes import Processes
from vpo_kit.training import checkpoints, ending, experts, health, optimisers
from vpo_kit.training.average import Average
from vpo_kit.training.budget import Spending
from vpo_kit.training.checkpoints import Checkpoint
from vpo_kit.training.cost import Passes
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.rates import factor, set_rates
from vpo_kit.training.run_folder import RunFolder
from vpo_kit.training.stopping import Best
from vpo_kit.training.stream import Stream

Report = dict[str, float]
OnStep = Callable[[Report, float], None]
"""What is told of each step: its row of the log, and the share of the budget that is spent."""


@dataclass(frozen=True, kw_only=True)
class RunParts:
    """The parts of one run, put together; `held_out` is what validation looks at, or None."""

    run: Run
    method: Method
    policy: LoraPolicy
    stream: Stream
    held_out: Stream | None
    folder: RunFolder
    processes: Processes
    on_step: OnStep
    on_notice: Callable[[str], None]
    on_sample: Callable[[int], None] = lambda _: None
    """A function that all processes call every ``samples.every`` steps, with the policy that would be kept."""

    @property
    def facts(self) -> health.Facts:
        """What the health checks know of the run."""
        method, run = self.method, self.run
        return health.Facts(
            run.optimiser.warmup_steps, run.health.window, method.start, fixed_labels="pairs" in method.needs.data
        )


@dataclass(frozen=True, kw_only=True)
class State:
    """What a checkpoint holds beside the weights and the method's own state."""

    optimiser: torch.optim.Optimizer
    best: Best
    budget: Spending
    average: Average
    warned: dict[str, str]


@dataclass(frozen=True)
class LoopResult:
    """The rows of a run's log, and the last warning of each health check that gave one."""

    history: list[Report]
    warnings: dict[str, str]


def train(job: RunParts) -> LoopResult:
    """Train until the budget is spent, from the newest checkpoint where there is one. The policy is then what the run
    keeps: the average of its last steps where there is one, or the weights that held-out data liked best.

    Raises `HealthError` when a check stops the run, and `InterruptedRunError` after the step in which Ctrl-C or SIGTERM
    came; the state of that moment is then the newest checkpoint. Raises `ConfigError` at the first validation where
    nothing that is called `early_stopping.metric` is logged.
    """
    run, method, policy = job.run, job.method, job.policy
    optimiser = optimisers.build(run.optimiser, policy.groups)
    best, budget, average = Best(run.early_stopping), Spending(run, job.processes), Average(run.optimiser.ema)
    state = State(optimiser=optimiser, best=best, budget=budget, average=average, warned={})
    first = _resume(job, state)
    # the same everywhere: a health check that fires in one process alone would leave the others waiting
    history: list[Report] = job.processes.agree(job.folder.rewind(first) if job.processes.is_main else [])
    batch: Batch | None = None
    last = budget.spent(first, history)
    with Passes(policy.model.networks.values()) as passes, ending.awaited(job.on_notice) as end:
        for step in range(first, run.steps):
            if last:
                break
            if best.stop:
                job.on_notice(f"{run.early_stopping.metric} gets no better: stopped, and back to step {best.step}")
                break
            if batch is None or step % method.updates_per_batch == 0:
                batch = job.stream.batch(step // method.updates_per_batch, step)
            set_rates(optimiser, factor(run.optimiser, step, budget.progress(step, history)))
            try:
                with kept_away() if run.activation_offload else nullcontext():
                    output = method.step(batch.at(step))
                    row = _update(job, output, batch.at(step), optimiser)
            except HealthError:  # in all processes at once, and before a weight was changed
                _keep(step, first, job, state)
                raise
            # a reward that cannot go on, for one, or a full GPU: nothing of this step has happened yet
            except (VpoError, torch.OutOfMemoryError) as error:
                if job.processes.count == 1:  # of several, the others wait inside the step and cannot help to save
                    _keep(step, first, job, state)
                where = f"step {step + 1}, items {job.stream.names(batch.indices)}"
                if not isinstance(error, VpoError):
                    raise VpoError(f"{where}: {memory_full(error)}") from error
                error.args = (f"{where}: {error}",)
                raise
            if run.optimiser.ema:
                average.update(policy.state())
            row["passes"] = float(job.processes.total(torch.tensor(passes.take())))
            history.append(row)
            last = budget.spent(step + 1, history)
            if job.held_out is not None and ((step + 1) % run.validation.every == 0 or last):
                with _looking(step + 1, job, state, row):  # what would be kept is what is looked at
                    row |= method.validate(job.held_out.in_order())
                    looked_at = policy.state()
                best.update(history, looked_at)
                passes.take()  # looking is not training
            _log(job, row, history, state)
            if run.samples.every and (step + 1) % run.samples.every == 0 and not last:
                with _looking(step + 1, job, state):
                    job.on_sample(step + 1)
                passes.take()
            # of all processes, as a signal reaches each at a moment of its own, and they save together
            asked = int(job.processes.total(torch.tensor(end.asked)))
            if (step + 1) % run.checkpoints.every == 0 or last or best.stop or asked:
                _save(step + 1, job, state)
            if asked and not last and not best.stop:
                raise end.error(asked, step + 1, str(job.folder.path))
    # the average of the last steps, unless held-out data liked an earlier one better
    if kept := best.policy or average.state:
        policy.load_state(kept, None)
    return LoopResult(history, _warnings(job, history))


def _update(job: RunParts, output: StepOutput, batch: Batch, optimiser: torch.optim.Optimizer) -> Report:
    """One optimiser step, and its row of the log. Raises `HealthError` before a weight is changed by NaN."""
    run, parameters = job.run, job.policy.parameters
    loss = job.processes.total(backward(output))
    _must_be_finite("loss", loss, batch, job)
    job.processes.sum_gradients(parameters)
    norm = torch.nn.utils.clip_grad_norm_(parameters, run.optimiser.max_grad_norm)
    _must_be_finite("gradient", norm, batch, job)
    row = {"step": batch.step + 1, "loss": float(loss), "grad_norm": float(norm), **experts.updated(job.policy.groups)}
    optimiser.step()
    optimiser.zero_grad()
    report = job.processes.mean(output.report) | job.processes.mean(output.by_label, output.num_labels)
    if labels := int(job.processes.total(torch.tensor(output.num_labels))):
        report["labels"] = labels
    return row | dict(sorted(report.items()))


def backward(output: StepOutput) -> Tensor:
    """Run backward through what a step gives, one graph at a time; returns this process's share of the loss."""
    parts = output.parts
    if parts is None:
        assert output.loss is not None
        parts = [output.loss]
    total = torch.zeros(())
    for part in parts:
        part.backward()  # type: ignore[no-untyped-call]
        total = total + part.detach().cpu()
    return total if output.loss is None else output.loss.detach()


def _keep(step: int, first: int, job: RunParts, state: State) -> None:
    """Save the state before a step that failed. Called by all processes."""
    if step > first:
        _save(step, job, state)
        job.on_notice(f"step {step + 1} failed: the state after step {step} is saved, go on with --resume")


@contextmanager
def _looking(step: int, job: RunParts, state: State, row: Report | None = None) -> Iterator[None]:
    """A look at what the run would keep after `step` steps, which is no training. A judge that fails in it takes no
    step away: the state is saved, behind the step's `row` where that is not logged yet.
    """
    try:
        with state.budget.looking(), job.policy.holding(state.average.state):
            yield
    except VpoError:
        if job.processes.count == 1:  # of several, the others wait inside and cannot help to save
            if row is not None:
                job.folder.append({k: v for k, v in row.items() if math.isfinite(v)})
            _save(step, job, state)
            job.on_notice(f"looking at step {step} failed: its state is saved, go on with --resume, without this look")
        raise


def _log(job: RunParts, row: Report, history: list[Report], state: State) -> None:
    """Write the row, and check the run's health. The row comes before a checkpoint: a kill in between loses neither."""
    if job.processes.is_main:
        job.folder.append({k: v for k, v in row.items() if math.isfinite(v)})
    try:
        for name, warning in health.check(history, job.facts, job.run.health.disable).items():
            if name not in state.warned:
                job.on_notice(f"{name}: {warning}")
            state.warned[name] = warning
    except HealthError:
        _save(int(row["step"]), job, state)
        raise
    job.on_step(row, state.budget.progress(int(row["step"]), history))


def _warnings(job: RunParts, history: Sequence[Report]) -> dict[str, str]:
    """The warnings of the whole log, so that a resumed run has those of its first part too, and what would have stopped
    it there if the checks had been what they are now.
    """
    found: dict[str, str] = {}
    for count in range(job.run.health.window, len(history) + 1):
        looked = health.look(history[:count], job.facts, job.run.health.disable)
        found |= {name: f"step {count}: {one.message}" for name, one in looked.items()}
    return found


def _must_be_finite(what: str, value: Tensor, batch: Batch, job: RunParts) -> None:
    """Check the gradients before the optimiser's step: afterwards the weights would be lost, and the next checkpoint
    with them.
    """
    if not torch.isfinite(value) and "not_finite" not in job.run.health.disable:
        items = job.stream.names(job.processes.gather(list(batch.indices)))
        shown = "; ".join(repr(prompt) for prompt in batch.prompts[:3])
        raise HealthError(
            "not_finite",
            f"step {batch.step + 1}: the {what} is {float(value)}; items {items}; prompts {shown}; "
            "no weight was changed",
        )


def _resume(job: RunParts, state: State) -> int:
    read = checkpoints.latest(job.folder.checkpoints)
    if read is None:
        return 0
    found, damaged = read
    for line in damaged:
        job.on_notice(f"{line}: going on from step {found.step}")
    if job.processes.is_main and not damaged:  # a run that was killed in between has not done so
        checkpoints.prune(job.folder.checkpoints, job.run.checkpoints.keep)
    job.policy.load_state(found.policy, found.reference)
    job.method.load_state({k: v.to(job.policy.model.device) for k, v in found.method.items()})
    state.optimiser.load_state_dict(found.optimiser)
    state.best.load_state(found.best)
    state.average.load_state(found.average, found.step)
    state.budget.resume(found.seconds)
    return found.step


def _save(step: int, job: RunParts, state: State) -> None:
    method = job.method.state()  # all processes: it may gather
    if job.processes.is_main:
        checkpoint = Checkpoint(
            step=step,
            policy=job.policy.state(),
            reference=job.policy.reference_state(),
            method={k: v.cpu() for k, v in method.items()},
            optimiser=state.optimiser.state_dict(),
            best=state.best.state(),
            average=state.average.state,
            seconds=state.budget.seconds,
        )
        checkpoints.save(job.folder.checkpoints, checkpoint, job.run.checkpoints.keep)
    job.processes.wait()
