"""`vpo plan`: what a run needs, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.cli.options import Config, Model, Prompts, Seed, Set, app, of_run


@app.command()
def plan(
    method: Annotated[str | None, typer.Option(help="training method (vpo methods)", show_default="online")] = None,
    reward: Annotated[str | None, typer.Option(help="as for vpo train", show_default="vqa")] = None,
    model: Model = None,
    prompts: Prompts = None,
    pairs: Annotated[Path | None, typer.Option(help="pair set; it need not be there")] = None,
    videos: Annotated[Path | None, typer.Option(help="folder of real clips; it need not be there")] = None,
    output: Annotated[Path | None, typer.Option(help="run folder; nothing is written")] = None,
    steps: Annotated[int | None, typer.Option(help="optimiser steps")] = None,
    init_lora: Annotated[Path | None, typer.Option(help="run, LoRA folder or file to start from")] = None,
    seed: Seed = None,
    config: Config = None,
    set_: Set = None,
    memory: Annotated[
        str | None, typer.Option(help="of one device, as 24GB or 80GiB", show_default="this GPU's")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="processes that share a batch, a device each")] = 1,
) -> None:
    """What a run needs, estimated without weights: memory by part, passes, time; and what to switch on first."""
    from vpo_kit.library import plan as command

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
    command.run(options, config, set_ or [], memory, processes)
