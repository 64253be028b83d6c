"""A training run from beginning to end: measure, train, measure again, report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from vpo_kit import formats, step_folders
from vpo_kit.config import merge, read_file
from vpo_kit.errors import ConfigError, HealthError
from vpo_kit.evaluation import measuring
from vpo_kit.evaluation.samples import Results, SamplePlan, compare
from vpo_kit.library import checks, contents
from vpo_kit.library.closing import Ended, finish, lost_words
from vpo_kit.library.display import TrainingBar, terminal
from vpo_kit.library.equipment import equip
from vpo_kit.library.following import followed
from vpo_kit.library.measurer import Measurer, select
from vpo_kit.processes import Processes
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Mixture
from vpo_kit.training import experts, idle, initial, reach
from vpo_kit.training import recipe as recipes
from vpo_kit.training.loop import Report, RunParts
from vpo_kit.training.loop import train as train_loop
from vpo_kit.training.lora import added_weights
from vpo_kit.training.recipe import Recipe
from vpo_kit.training.run import Assembly
from vpo_kit.training.run_folder import RunFolder


@dataclass(frozen=True)
class Trained:
    """A finished run: its folder, and what ``summary.json`` in it says."""

    folder: Path
    summary: Mapping[str, Any]

    @property
    def lora(self) -> Path:
        """The folder with the LoRA; `sample`, `load_model` and ``pipe.load_lora_weights`` take it."""
        return self.folder / "lora"


def train(
    method: str | None = None,
    *,
    reward: str | None = None,
    model: str | None = None,
    output: Path | str | None = None,
    steps: int | None = None,
    config: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Trained:
    """Train by a method (default: online) with a reward on a model, measured before and after on held-out prompts.

    `settings` are sections and fields of a recipe (``optimiser={"lr": 1e-4}``, ``pairs="pairs/a"``), `config` is one
    that they are laid over. The run's folder `output` is by default ``runs/METHOD-DATE``; `resume` goes on with the run
    in it, `overwrite` replaces it. `quiet` shows nothing.

    Raises `VpoError` for whatever a user can mend, among them `HealthError` for a run that a check has stopped.
    """
    named = {"method": method, "reward": reward, "model": model, "steps": steps}
    given = merge(settings, {key: value for key, value in named.items() if value is not None})
    if output is not None:
        given["output"] = Path(output)
    file = file_of(Path(config) if config else None, given.get("output"), resume=resume, overwrite=overwrite)
    return run(initial.resolve(recipes.read(given, file, [])), resume=resume, overwrite=overwrite, quiet=quiet)


def file_of(file: Path | None, output: Path | None, *, resume: bool, overwrite: bool) -> Path | None:
    """The recipe `file`, or that of the run in `output` which is to go on. Raises `ConfigError`."""
    if resume and overwrite:
        raise ConfigError("--resume goes on with a run, --overwrite replaces it: give one of them")
    if resume and output is None:
        raise ConfigError("--resume: give the run's folder with --output")
    if resume and file is None and output is not None and (output / "config.yaml").is_file():
        file = output / "config.yaml"
        formats.unchanged(read_file(file), file, "run")
    return file


def run(recipe: Recipe, *, resume: bool = False, overwrite: bool = False, quiet: bool = False) -> Trained:
    """Train as a checked recipe says. Raises as `train`."""
    processes = Processes()
    checks.check_processes(recipe.run, processes)
    if recipe.run.micro_batch_size == "auto":
        from vpo_kit.library import plan as plans

        recipe = plans.settled(recipe, processes.count, None, terminal(quiet=not processes.is_main))
    with processes.guarded(), ExitStack() as held:
        name = processes.agree(f"{recipe.run.method_name}-{datetime.now():%Y%m%d-%H%M%S}")
        folder = RunFolder(recipe.run.output or Path("runs") / name)
        folder.check(recipe.run, resume=resume, overwrite=overwrite)
        processes.wait()  # all have looked before the first one writes

        def claim() -> None:
            """Again, as another run may have begun here while this one's model was loaded."""
            held.enter_context(folder.claimed())
            folder.check(recipe.run, resume=resume, overwrite=overwrite)
            folder.start(recipe.run, resume=resume)
            contents.keep(found, folder.path)

        console = terminal(quiet=quiet or not processes.is_main)
        checks.check(recipe)
        found = processes.main_first(lambda: contents.of(recipe, console))
        if resume and folder.holds_run:
            contents.check(found, folder.path)
        _train(recipe, folder, console, processes, claim, held)
        processes.wait()  # the main process has written the summary
        return Trained(folder.path, json.loads((folder.path / "summary.json").read_text(encoding="utf-8")))


def _train(
    recipe: Recipe,
    folder: RunFolder,
    console: Console,
    processes: Processes,
    claim: Callable[[], None],
    held: ExitStack,
) -> None:
    run, started = recipe.run, time.monotonic()
    notice = partial(console.print, soft_wrap=True)
    for line in rewards.foreign(recipe.scoring, run.model):
        notice(line)
    notice(f"run: {folder.path}")
    own = equip(recipe, console, processes, notice)
    model, policy, plan = own.model, own.policy, own.plan
    if processes.is_main:
        claim()  # only now: a model that does not load must leave nothing behind
    processes.wait()  # nobody looks for checkpoints before an old run's are gone
    for network in model.networks.values():
        processes.shard(network, whole=added_weights(network))
    measures = measuring.load(run.evaluation.measured)
    measurer = Measurer(model=model, run=folder.path, console=console, processes=processes, encode=own.encode)
    parts = Assembly(run=run, policy=policy, settings=own.settings, encode=own.encode, processes=processes)
    method = recipe.method(recipe.method_config, parts.context(own.reward, judges=own.judges, source=own.source))
    with policy.reference():  # at the start the bare model or `lora.init`, whatever a checkpoint will load
        before = measurer.measure(plan, own.judges, measures, step_folders.name(0), "before")

    def small(plan: SamplePlan, place: str) -> Results | None:
        return measurer.measure(plan, own.judges, measures, place, "samples")

    following = held.enter_context(followed(recipe, folder, small, is_main=processes.is_main))
    following.began(before)
    bar = TrainingBar(console, run.steps)

    def step(row: Report, spent: float) -> None:
        bar.step(row, spent)
        following.step(row)

    sampled = partial(following.sampled, plan)
    job = parts.job(method, own.source, folder, on_step=step, on_notice=bar.notice, on_sample=sampled)
    notice(reach.line(run))
    idle_lines = idle.settings(run, recipe.method, recipe.method_config, validates=job.held_out is not None)
    for line in [*job.method.notes, *idle_lines]:
        notice(line)
    done, stopped, warnings = _learn(job, bar, own.reward)
    choice = None if stopped else select(recipe, own, measurer, done, notice)
    if processes.is_main:
        policy.export(folder.path / "lora")
        updates = experts.counts(folder.log())
        for line in experts.unchanged(policy, updates):
            notice(line)
    after = measurer.measure(plan, own.judges, measures, step_folders.name(done), "after")
    if processes.is_main:
        changes = compare(before, after) if before and after else {}
        warnings |= lost_words(recipe, changes, notice)
        ended = Ended(
            steps=done,
            stopped=stopped,
            warnings=warnings,
            choice=choice,
            seconds=round(time.monotonic() - started, 1),
            updates=updates,
        )
        finish(recipe, model, folder, ended, before, after, changes, console)
        following.ended(done, after, changes)
    if stopped is not None:
        raise stopped


def _learn(job: RunParts, bar: TrainingBar, reward: Mixture | None) -> tuple[int, HealthError | None, dict[str, str]]:
    """The steps that are done, the check that stopped the run, and the warnings of those that did not."""
    with bar:
        try:
            trained = train_loop(job)
        except HealthError as error:
            # in all processes at once; the log has the step whose row the check has seen, the bar has not
            return job.processes.agree(len(job.folder.log()) if job.processes.is_main else 0), error, {}
        finally:
            for line in (text for part in (reward.parts if reward else []) for text in part.spent()):
                bar.notice(line)
    # the log's last step, not the bar's: a resumed run may have nothing left to do
    return int(trained.history[-1]["step"]), None, dict(trained.warnings)
