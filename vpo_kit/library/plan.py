"""`vpo plan`: what a run needs, before anything is loaded or trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from vpo_kit import config, defaults
from vpo_kit.errors import ConfigError
from vpo_kit.folders import prompts_of
from vpo_kit.library.display import terminal
from vpo_kit.planning import auto, probe
from vpo_kit.planning.advice import HEADROOM, advise, fits
from vpo_kit.planning.estimate import Estimate, Subject
from vpo_kit.planning.probe import Speed
from vpo_kit.planning.rehearsal import rehearse
from vpo_kit.planning.repeats import Known
from vpo_kit.recipes.cards import num_bytes
from vpo_kit.registry import METHODS
from vpo_kit.training import initial
from vpo_kit.training import recipe as recipes
from vpo_kit.training.recipe import Recipe

NAMES = {
    "weights": "weights",
    "reference": "reference",
    "lora": "LoRA and optimiser",
    "activations": "activations",
    "autoencoder": "autoencoder",
    "reward": "reward and judges",
    "text": "text encoder",
}
PHASES = {"prompts": "prompts", "measure": "measuring", "data": "data", "step": "training step"}
LONGEST_S = 1000 * 3600.0
"""Seconds beyond which the figure is of no more use than that it is too long."""


def run(
    options: Mapping[str, Any], file: Path | None, assignments: Sequence[str], memory: str | None, processes: int
) -> None:
    """Print the plan. Raises `VpoError` for whatever training would refuse."""
    show(_recipe(options, file, assignments), memory, processes)


def show(recipe: Recipe, memory: str | None = None, processes: int = 1) -> None:
    """Print the plan of a checked run for `processes` processes, each with a device of `memory`."""
    console = terminal()
    size = num_bytes(memory) if memory else _device_memory()
    recipe = settled(recipe, processes, size, console)
    subject, known = subject_of(recipe, processes), Known()
    with console.status("rehearsing without weights"):
        estimate = rehearse(subject, known)
        # with --memory and no GPU the plan is for another machine, of whose speed nothing is known
        speed = None if memory and not torch.cuda.is_available() else probe.measure(recipe.run.dtype)
    _print_memory(console, estimate)
    _print_cost(console, estimate, recipe, speed, subject)
    for note in estimate.notes:
        console.print(note, soft_wrap=True)
    if size is None:
        console.print("no GPU here: give --memory 24GB to see whether it fits one", soft_wrap=True)
    elif fits(estimate, size):
        console.print(f"fits {_readable(size)} with {_readable(size - estimate.peak)} to spare", soft_wrap=True)
    else:
        _print_advice(console, subject, estimate, size, known)


def settled(recipe: Recipe, processes: int, memory: int | None, console: Console) -> Recipe:
    """The recipe with a number in place of ``micro_batch_size: auto``: what fits `memory` bytes, None for the GPU here.

    Raises `ConfigError` where there is none, and where nothing fits.
    """
    if recipe.run.micro_batch_size != "auto":
        return recipe
    size = memory or _device_memory()
    if size is None:
        raise ConfigError("micro_batch_size: auto goes by a GPU's memory, and there is none here: give a number")
    with console.status("looking for the micro-batch that fits"):
        found = auto.micro_batch_size(subject_of(recipe, processes), size)
    shown = "all videos of a step" if found is None else f"{found} at once"
    console.print(f"micro_batch_size auto: {shown}, by the plan for {_readable(size)}", soft_wrap=True)
    return replace(recipe, run=recipe.run.model_copy(update={"micro_batch_size": found}))


def _recipe(options: Mapping[str, Any], file: Path | None, assignments: Sequence[str]) -> Recipe:
    """The recipe as for training, but data need not be at hand: prompts, pairs and clips are all alike to a plan."""
    values = recipes.merged(options, file, assignments)
    given = defaults.build(values)
    method = METHODS.load(given.method_name)
    wanted = method.needs.data
    missing: dict[str, Any] = {}
    if "prompts" not in wanted and not any(getattr(given, kind) for kind in wanted):
        missing[wanted[0]] = Path(wanted[0])
    if prompts_of(given.model, "train") is None or given.prompts is not None:
        missing["prompts"] = prompts_of("sprites", "train")
    if prompts_of(given.model, "heldout") is None or given.evaluation.prompts is not None:
        missing["evaluation"] = {"prompts": prompts_of("sprites", "heldout")}
    return initial.resolve(recipes.complete(config.merge(values, missing)))


def subject_of(recipe: Recipe, processes: int) -> Subject:
    """What is rehearsed of a checked run. Raises `ConfigError` for a batch that does not divide."""
    run = recipe.run
    if run.batch_size % processes:
        raise ConfigError(f"batch_size {run.batch_size} does not divide over {processes} processes")
    videos = min(run.evaluation.num_prompts, len(recipe.held_out)) * run.evaluation.videos_per_prompt
    return Subject(
        run=run,
        method=recipe.method,
        method_config=recipe.method_config,
        reward=recipe.reward,
        judges=recipe.judges,
        data=recipe.data,
        measured=videos,
        selected=len(recipe.validation) if recipe.selection else 0,
        processes=processes,
    )


def _print_memory(console: Console, estimate: Estimate) -> None:
    unit = 1e9 if estimate.peak >= 1e9 else 1e6
    title = f"Peak memory in {'GB' if unit == 1e9 else 'MB'}, estimated"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("")
    table.add_column("parameters", justify="right")
    for name in estimate.phases:
        table.add_column(PHASES[name], justify="right")
    for part, label in NAMES.items():
        sizes = [f"{phase[part] / unit:.1f}" for phase in estimate.phases.values()]
        table.add_row(label, _count(estimate.parameters.get(part)), *sizes)
    totals = [f"{sum(phase.values()) / unit:.1f}" for phase in estimate.phases.values()]
    table.add_section()
    table.add_row("together", "", *totals, style="bold")
    console.print(table)


def _print_cost(console: Console, estimate: Estimate, recipe: Recipe, speed: Speed | None, subject: Subject) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_row("network passes a step", f"{estimate.passes:g}")
    table.add_row("arithmetic a step", _flops(estimate.flops))
    for what, rollout, together in estimate.judging:
        table.add_row(f"{what} of a rollout", f"{rollout}, {together} in the run, without retries")
    if speed is None:
        console.print(table)
        console.print(
            "No time is given: there is no GPU here whose speed could be probed. At 100 TFLOP/s the arithmetic of a "
            f"step takes {duration(estimate.flops / 1e14)}."
        )
        return
    seconds = speed.seconds(estimate.ops["step"]) / estimate.steps
    twice, selection = 2 * measuring(estimate, subject, speed), selecting(estimate, subject, speed)
    rows = {"a step": seconds}
    if twice:
        rows["measuring, before and after"] = twice
    if selection:
        rows[f"selection, {_selections(subject)} times {subject.selected} videos"] = selection
    rows[f"the run, {recipe.run.steps} steps"] = recipe.run.steps * seconds + twice + selection
    for name, value in rows.items():
        table.add_row(name, f"{_about(value)} on {speed.device}")
    console.print(table)
    console.print(
        f"Times are estimates for {speed.device}, from a probe of {speed.matrix / 1e9:.0f} GFLOP/s in matrix products "
        f"and {speed.bytes / 1e9:.3g} GB/s.",
    )


def measuring(estimate: Estimate, subject: Subject, speed: Speed) -> float:
    """Seconds of one measurement, before or after training."""
    return _seconds(subject.measured, estimate, subject, speed)


def selecting(estimate: Estimate, subject: Subject, speed: Speed) -> float:
    """Seconds of the selection, of which every measurement is one of its own; 0 where nothing is selected."""
    return _selections(subject) * _seconds(subject.selected, estimate, subject, speed)


def _selections(subject: Subject) -> int:
    """How many measurements the selection takes: of every strength, and of the model before training."""
    return len(subject.run.selection.strengths) + 1


def _seconds(videos: int, estimate: Estimate, subject: Subject, speed: Speed) -> float:
    """Seconds in which the processes sample and score so many videos, each its share of the batches."""
    if not videos:
        return 0.0
    size = subject.run.sampling.batch_size
    share = min(videos, size) / min(subject.most_measured, size)  # of the batch that was rehearsed
    batches = math.ceil(math.ceil(videos / size) / subject.processes)
    return batches * share * speed.seconds(estimate.ops["measure"])


def _print_advice(console: Console, subject: Subject, estimate: Estimate, size: int, known: Known) -> None:
    console.print(
        f"does not fit {_readable(size)}: {_readable(estimate.peak)} are needed, and {1 - HEADROOM:.0%} should stay "
        "free",
        soft_wrap=True,
    )
    with console.status("looking for what helps"):
        found = advise(subject, estimate, size, known=known)
    for number, advice in enumerate(found):
        word = "first" if number == 0 else "then"
        console.print(f"{word} --set '{advice.setting}': {_readable(advice.peak)}", soft_wrap=True)
    if not found or found[-1].peak > HEADROOM * size:
        console.print(
            "that is not enough: sample fewer frames or smaller ones (sampling.frames, height, width), or take a "
            "smaller model"
        )


def _device_memory() -> int | None:
    return int(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None


def _readable(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def _count(number: int | None) -> str:
    if not number:
        return ""
    return f"{number / 1e9:.3g}B" if number >= 1e9 else f"{number / 1e6:.3g}M"


def _flops(number: float) -> str:
    return f"{number / 1e12:.3g} TFLOP" if number >= 1e12 else f"{number / 1e9:.3g} GFLOP"


def _about(seconds: float) -> str:
    return f"about {duration(seconds)}" if seconds < LONGEST_S else f"more than {duration(LONGEST_S)}"


def duration(seconds: float) -> str:
    """``4.2 s``, ``12 min`` or ``7.5 h``."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 360_000 else f"{seconds / 3600:.0f} h"
