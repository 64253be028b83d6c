"""`vpo train`: measure, train, measure again, report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from vpo_kit import models
from vpo_kit.commands import card, initial, sources
from vpo_kit.commands import recipe as recipes
from vpo_kit.commands.display import TrainingBar, count_bar, print_changes
from vpo_kit.commands.recipe import Recipe
from vpo_kit.config import dump
from vpo_kit.errors import ConfigError, HealthError
from vpo_kit.evaluation import report
from vpo_kit.evaluation.evaluate import Evaluation, Measure, Plan, compare, evaluate, finished
from vpo_kit.evaluation.statistics import Paired
from vpo_kit.evaluation.temporal import closed_forms
from vpo_kit.methods.base import Context
from vpo_kit.models import memory
from vpo_kit.models.base import VideoModel
from vpo_kit.models.cache import DiskCache
from vpo_kit.models.encoding import PromptCache
from vpo_kit.processes import Processes
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Reward
from vpo_kit.training.data import Pairs
from vpo_kit.training.folder import RunFolder
from vpo_kit.training.loop import Job, train
from vpo_kit.training.lora import LoraPolicy, added_weights
from vpo_kit.training.stream import Stream, split


def run(
    options: dict[str, Any],
    file: Path | None,
    assignments: Sequence[str],
    *,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    plan: bool = False,
) -> None:
    """Train as the recipe says. Raises `VpoError` for whatever a user can mend."""
    if resume and overwrite:
        raise ConfigError("--resume goes on with a run, --overwrite replaces it: give one of them")
    output: Path | None = options.get("output")
    if resume and output is None:
        raise ConfigError("--resume: give the run's folder with --output")
    if resume and file is None and output is not None and (output / "config.yaml").is_file():
        file = output / "config.yaml"
    recipe = initial.resolve(recipes.read(options, file, assignments))
    if plan and not dry_run:
        raise ConfigError("--plan goes with --dry-run; vpo plan is the same without data")
    if dry_run:
        print(dump(recipe.run), end="")
        if plan:
            from vpo_kit.commands import plan as plans  # torch's private parts that it needs are no training's business

            plans.show(recipe)
        return
    processes = Processes()
    if recipe.run.batch_size % processes.count:
        raise ConfigError(f"batch_size {recipe.run.batch_size} does not divide over {processes.count} processes")
    if processes.sharded and recipe.run.quantise != "none":
        raise ConfigError("quantise: a quantised base cannot be sharded: launch without FSDP, or leave it out")
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

        _train(recipe, folder, Console(quiet=not processes.is_main), processes, claim)


def _train(
    recipe: Recipe, folder: RunFolder, console: Console, processes: Processes, claim: Callable[[], None]
) -> None:
    run, started = recipe.run, time.monotonic()
    model = models.load(
        run.model, revision=run.revision, dtype=run.dtype, attention=run.attention, offload=run.offload,
        quantise=run.quantise,
    )  # fmt: skip
    memory.tune(model, gradient_checkpointing=run.gradient_checkpointing, compile=run.compile, vae=run.vae)
    settings = recipes.settings_of(model.settings, run.sampling)
    model.latent_shape(settings.frames, settings.height, settings.width)
    notice = partial(console.print, soft_wrap=True, markup=False)
    disk = DiskCache(run.cache, notice) if run.cache else None
    source = sources.build(recipe, model, settings, console, processes, disk)
    policy = LoraPolicy(model, run.lora, run.seed, initial.start(model, run.lora))
    reward = rewards.load(recipe.reward, model.device, offload=run.offload) if recipe.reward else None
    judges = [
        *(reward.parts if reward else []),
        *rewards.load(recipe.judges, model.device, offload=run.offload).parts,
    ]
    if processes.is_main:
        claim()  # only now: a model that does not load must leave nothing behind
    processes.wait()  # nobody looks for checkpoints before an old run's are gone
    for network in model.networks.values():
        processes.shard(network, whole=added_weights(network))
    seed = run.seed if run.evaluation.seed is None else run.evaluation.seed
    plan = Plan(recipe.held_out, run.evaluation.videos_per_prompt, settings, run.sampling.batch_size, seed)
    extra = [closed_forms] if run.evaluation.temporal else []
    encode = PromptCache(model, disk)
    measure = partial(_measure, model, plan, judges, extra, folder, console, processes, encode)
    context = Context(
        policy, reward, settings, encode([settings.negative_prompt]), run.sampling.batch_size, run.seed,
        processes, source.scores if isinstance(source, Pairs) else None,
        [judge for judge in judges if not judge.spec.for_training],
    )  # fmt: skip
    method = recipe.method(recipe.method_config, context)
    with policy.reference():  # at the start the bare model or `lora.init`, whatever a checkpoint will load
        before = measure(0, "before")
    share = run.validation.share if recipe.method.needs.validation else 0.0
    train_items, held_items = split(source, share, run.seed)
    streams = [
        Stream(source, items, run.batch_size, run.seed, encode, processes)
        for items in (train_items, held_items[: run.validation.max_items])
    ]
    stopped: HealthError | None = None
    with TrainingBar(console, run.steps) as bar:
        held_out = streams[1] if held_items else None
        job = Job(run, method, policy, streams[0], held_out, folder, processes, bar.step, bar.notice)
        try:
            done = int(train(job)[-1]["step"])  # not the bar's: a resumed run may have nothing left to do
        except HealthError as error:
            stopped, done = error, bar.done
    if processes.is_main:
        policy.export(folder.path / "lora")
    after = measure(done, "after")
    if processes.is_main:
        changes = _finish(recipe, folder, done, before, after, stopped, time.monotonic() - started, console)
        outcome = card.Outcome(done, changes, str(stopped or "passed"))
        folder.write("lora/README.md", card.render(recipe, model, outcome))
    if stopped is not None:
        raise stopped


def _measure(
    model: VideoModel,
    plan: Plan,
    judges: Sequence[Reward],
    extra: Sequence[Measure],
    folder: RunFolder,
    console: Console,
    processes: Processes,
    encode: PromptCache,
    step: int,
    name: str,
) -> Evaluation | None:
    """Evaluate, all processes together, or take what a killed run has already measured."""
    if not plan.prompts:
        return None
    where = folder.path / "samples" / f"step-{step:06d}"
    if found := processes.agree(finished(where)):
        return found
    with count_bar(console, name, len(plan.items), "videos") as tick:
        return evaluate(model, plan, judges, where, name, tick, extra, processes, encode)


def _finish(
    recipe: Recipe,
    folder: RunFolder,
    done: int,
    before: Evaluation | None,
    after: Evaluation | None,
    stopped: HealthError | None,
    seconds: float,
    console: Console,
) -> Mapping[str, Paired]:
    run, changes = recipe.run, dict[str, Paired]()
    health = {"ok": stopped is None, "check": stopped.check if stopped else None, "message": str(stopped or "")}
    summary: dict[str, Any] = {
        "method": run.method_name, "reward": run.reward_name if recipe.reward else None, "model": run.model,
        "steps": done, "seconds": round(seconds, 1), "before": {}, "after": {}, "health": health,
        "versions": report.versions(),
    }  # fmt: skip
    if before and after:
        changes = compare(before, after)
        summary |= {"before": before.table(), "after": after.table(), "changes": report.rows(changes)}
        page = report.Page(
            title=f"{run.method_name} with {run.reward_name}" if recipe.reward else run.method_name,
            evaluations=[before, after],
            folders=[f"samples/step-{0:06d}", f"samples/{_last_samples(folder)}"],
            log=_log(folder),
            settings=run.model_dump(mode="json"),
            licences={part.spec.name: part.spec.licence for part in [*recipe.reward, *recipe.judges]},
            health=str(stopped or "passed"),
        )
        folder.write("report.html", report.render(page))
        print_changes(console, changes, "before", "after")
    folder.write("summary.json", json.dumps(summary, indent=2) + "\n")
    console.print(f"LoRA: {folder.path / 'lora'}   summary: {folder.path / 'summary.json'}", soft_wrap=True)
    if before and after:
        console.print(f"page: {folder.path / 'report.html'}", soft_wrap=True)
    return changes


def _last_samples(folder: RunFolder) -> str:
    return max(path.name for path in (folder.path / "samples").glob("step-*"))


def _log(folder: RunFolder) -> list[Mapping[str, float]]:
    lines = (folder.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
