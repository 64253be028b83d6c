"""`vpo train`: a method on a model, or what a recipe comes to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpo_kit.catalogue import learning_from
from vpo_kit.cli.options import Config, Model, Prompts, Seed, Set, app, of_run
from vpo_kit.errors import ConfigError

if TYPE_CHECKING:
    from vpo_kit.training.recipe import Recipe


@app.command()
def train(
    method: Annotated[str | None, typer.Option(help="training method (vpo methods)", show_default="online")] = None,
    reward: Annotated[
        str | None, typer.Option(help="vqa, a mixture vqa:0.7+other:0.3, or package.module:Class", show_default="vqa")
    ] = None,
    model: Model = None,
    prompts: Prompts = None,
    pairs: Annotated[Path | None, typer.Option(help=f"pair set (vpo pair), for {learning_from('pairs')}")] = None,
    videos: Annotated[Path | None, typer.Option(help=f"folder of real clips, for {learning_from('videos')}")] = None,
    output: Annotated[Path | None, typer.Option(help="run folder", show_default="runs/METHOD-DATE")] = None,
    steps: Annotated[int | None, typer.Option(help="optimiser steps")] = None,
    init_lora: Annotated[
        Path | None, typer.Option(help="run, LoRA folder or file to start from; it is then the reference")
    ] = None,
    seed: Seed = None,
    config: Config = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run in --output")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the run in --output")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, print the recipe, load no weights")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="with --dry-run: also what the run needs (vpo plan)")] = False,
) -> None:
    """Align a model, with its measurement before and after on held-out prompts."""
    from vpo_kit.library import train as trainings
    from vpo_kit.training import initial, recipe

    options = of_run(
        init_lora,
        method=method,
        reward=reward,
        model=model,
        prompts=prompts,
        pairs=pairs,
        videos=videos,
        output=output,
        steps=steps,
        seed=seed,
    )
    config = trainings.file_of(config, output, resume=resume, overwrite=overwrite)
    checked = initial.resolve(recipe.read(options, config, set_ or []))
    if plan and not dry_run:
        raise ConfigError("--plan goes with --dry-run; vpo plan is the same without data")
    if dry_run:
        _show(checked, plan=plan)
    else:
        trainings.run(checked, resume=resume, overwrite=overwrite)


def _show(checked: Recipe, *, plan: bool) -> None:
    """Print the whole recipe, where its defaults come from, and what only the run itself can check."""
    from vpo_kit import defaults
    from vpo_kit.config import dump
    from vpo_kit.library import checks
    from vpo_kit.rewards import loading

    print(dump(checked.run), end="")
    for line in defaults.provenance(checked.run, checked.given):
        print(f"# {line}")
    checks.check(checked)
    for line in loading.foreign(checked.scoring, checked.run.model):
        print(f"# {line}")
    for line in checks.unchecked(checked):
        print(f"# not checked: {line}")
    if plan:
        from vpo_kit.library import plan as plans  # torch's private parts that it needs are no training's business

        plans.show(checked)
