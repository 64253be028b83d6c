"""`vpo compare`: methods on one base, budget and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.catalogue import learning_from
from vpo_kit.cli.options import Config, Model, Prompts, app

GUIDED = learning_from("pairs", apart="independent")
INDEPENDENT = learning_from("pairs", only="independent")
TWO = ",".join(learning_from(kind).partition(",")[0] for kind in ("prompts", "pairs"))


@app.command()
def compare(
    output: Annotated[Path, typer.Option(help="folder; the same command goes on with it")],
    methods: Annotated[
        str | None, typer.Option(help=f"{TWO},... (vpo methods)", show_default="those of the recipe")
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
    power: Annotated[
        float | None,
        typer.Option(min=0, help="say how likely a change of this size is found, from the runs so far, and stop"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check everything, show what it costs, and stop")] = False,
) -> None:
    """Train methods on one base, budget and data, several seeds each; one board of gains and costs."""
    from vpo_kit.comparison.plan import Given
    from vpo_kit.library import compare as command
    from vpo_kit.library.entries import CompareRequest

    given = Given(prompts, pairs, independent_pairs, videos)
    request = CompareRequest(
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
    if power is not None:
        command.power(request, power)
    elif dry_run:
        command.dry_run(request)
    else:
        command.run(request)
