"""`vpo eval`, `vpo compare` and `vpo score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.catalogue import learning_from
from vpo_kit.cli.options import Config, Model, Prompts, Seed, Set, app

GUIDED = learning_from("pairs", apart="independent")
INDEPENDENT = learning_from("pairs", only="independent")


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
        list[str] | None, typer.Option(help="reward to report; may be given several times", show_default="vqa")
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


@app.command()
def compare(
    output: Annotated[Path, typer.Option(help="folder; the same command goes on with it")],
    methods: Annotated[
        str | None, typer.Option(help="online,dense,... (vpo methods)", show_default="those of the recipe")
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            help="optimiser_steps=N, network_passes=N, labelled_segments=N, or several joined by commas",
            show_default="the recipe's steps",
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="runs of each method")] = 3,
    config: Config = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.field=value for all, METHOD:section.field=value for one"),
    ] = None,
    vary: Annotated[
        list[str] | None, typer.Option(help="section.field=value,value: a row for each, as --set for all or one")
    ] = None,
    model: Model = None,
    reward: Annotated[str | None, typer.Option(help="reward of all methods that need one", show_default="vqa")] = None,
    prompts: Prompts = None,
    pairs: Annotated[Path | None, typer.Option(help=f"pair set, for {GUIDED}")] = None,
    independent_pairs: Annotated[
        Path | None, typer.Option(help=f"pair set from independent noise, for {INDEPENDENT}")
    ] = None,
    videos: Annotated[Path | None, typer.Option(help=f"folder of real clips, for {learning_from('videos')}")] = None,
) -> None:
    """Train methods on one base, budget and data, several seeds each; one board of gains and costs."""
    from vpo_kit.comparison.plan import Given
    from vpo_kit.library import compare as command

    given = Given(prompts, pairs, independent_pairs, videos)
    command.run(
        command.CompareRequest(
            methods=methods,
            output=output,
            budget=budget,
            seeds=seeds,
            given=given,
            model=model,
            reward=reward,
            config=config,
            assignments=tuple(set_ or ()),
            vary=tuple(vary or ()),
        )
    )


@app.command()
def score(
    videos: Annotated[list[Path], typer.Argument(help="clips, or folders of clips")],
    reward: Annotated[str | None, typer.Option(help="reward or mixture", show_default="vqa")] = None,
    prompt: Annotated[
        str | None, typer.Option(help="the clips' prompt", show_default="each clip's caption in its folder")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="also write a .csv, .jsonl or .json file")] = None,
    segments: Annotated[float | None, typer.Option(min=0.01, help="also score segments of so many seconds")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1", show_default="the GPU, if any")] = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Score clips with a reward: higher is better."""
    from vpo_kit.commands import score as command
    from vpo_kit.config import read_assignments

    command.run(
        videos,
        reward,
        prompt,
        device=device,
        config=config,
        settings=read_assignments(set_ or []),
        output=output,
        segment_seconds=segments,
    )
