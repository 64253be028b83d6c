"""`vpo eval`: runs against their base, on the same prompts and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.cli.options import Config, Prompts, Seed, Set, app


@app.command(name="eval")
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="run folders or LoRA folders, all of one model")],
    output: Annotated[
        Path, typer.Option(help="folder for videos, results and report.html; the same command goes on with it")
    ],
    model: Annotated[str | None, typer.Option(help="base model", show_default="the first run's")] = None,
    prompts: Prompts = None,
    num_prompts: Annotated[int, typer.Option(min=1, help="at most so many prompts")] = 48,
    videos_per_prompt: Annotated[int, typer.Option(min=1, help="from 2 on, diversity is measured")] = 1,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            help="reward to report; may be given several times", show_default="the run's own; vqa of the embedded model"
        ),
    ] = None,
    dino: Annotated[str | None, typer.Option(help="DINO model folder or hub id, for subject consistency")] = None,
    reference: Annotated[Path | None, typer.Option(help="folder of clips, for Frechet and kernel distance")] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="judge, pixels, dino or package.module:Class", show_default="diversity: pixels, distances: judge"
        ),
    ] = None,
    best_of: Annotated[
        int, typer.Option(min=0, help="also the base's best of so many samples, and of 2, 4, ...; 0 is off")
    ] = 8,
    latex: Annotated[bool, typer.Option("--latex", help="also write results.tex")] = False,
    vbench_export: Annotated[Path | None, typer.Option(help="write the videos as VBench's input")] = None,
    vbench_results: Annotated[
        list[Path] | None, typer.Option(help="VBench's *_eval_results.json; may be given several times")
    ] = None,
    seed: Seed = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Compare the base model with runs: same prompts, same seeds, paired intervals, a page of videos."""
    from vpo_kit.config import read_assignments
    from vpo_kit.library import bench
    from vpo_kit.library import evaluate as command

    command.run(
        bench.EvaluateRequest(
            runs=runs,
            output=output,
            model=model,
            prompts=prompts,
            num_prompts=num_prompts,
            videos_per_prompt=videos_per_prompt,
            rewards=reward or [],
            seed=seed or 0,
            config=config,
            settings=read_assignments(set_ or []),
            dino=dino,
            features=features,
            reference=reference,
            latex=latex,
            vbench_export=vbench_export,
            vbench_results=vbench_results or [],
            best_of=best_of,
        )
    )
