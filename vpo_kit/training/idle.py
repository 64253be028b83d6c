"""Settings that can never act in a run: each is said in one line at its start."""

from __future__ import annotations

from vpo_kit.config import Run
from vpo_kit.methods.base import Method


def settings(run: Run, method: type[Method], config: object, *, validates: bool) -> list[str]:
    """A line for each setting that does nothing in `run`; `validates` says whether validation has items."""
    steps, found = run.steps, []
    if run.optimiser.warmup_steps >= steps:
        found.append(
            f"optimiser.warmup_steps {run.optimiser.warmup_steps}: the full rate is not reached in {steps} steps"
        )
    if validates and run.validation.every > steps:
        found.append(f"validation.every {run.validation.every}: in {steps} steps there is one validation, at the end")
    patience = run.early_stopping.patience
    if patience and not validates:
        found.append("early_stopping: nothing is held out for validation, so it has nothing to watch")
    elif patience and patience * run.validation.every >= steps:
        found.append(
            f"early_stopping.patience {patience}: {patience} validations in a row without a better value do not fit "
            f"into {steps} steps, so it can only choose among them"
        )
    if run.health.window > steps:
        found.append(f"health.window {run.health.window}: no check looks at a run of {steps} steps")
    return [*found, *method.idle(config, run)]
