"""`vpo pair`, to which a file for each command on finished sets adds itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vpo_kit.cli.options import Config, Model, Prompts, Seed, Set, app, of_call
from vpo_kit.errors import ConfigError

pair_app = typer.Typer(
    rich_markup_mode=None, invoke_without_command=True, help="Make preference pairs, and look after sets of them."
)
app.add_typer(pair_app, name="pair")


@pair_app.callback()
def pair(
    context: typer.Context,
    strategy: Annotated[
        Literal["independent", "guided", "local", "real"],
        typer.Option(
            help="from prompts alone; from noised real clips; a clip against its copy made anew in part; "
            "a clip against a sample of its caption"
        ),
    ] = "independent",
    output: Annotated[Path | None, typer.Option(help="folder of the set; the same command goes on with it")] = None,
    prompts: Prompts = None,
    videos: Annotated[
        Path | None, typer.Option(help="real clips: a videofolder, or videos with a .txt beside each")
    ] = None,
    model: Model = None,
    label: Annotated[
        str, typer.Option(help="reward:NAME, vlm:MODEL, people, one's own, or none; local and real pairs need none")
    ] = "reward:vqa",
    lora: Annotated[Path | None, typer.Option(help="run, LoRA folder or file: pairs of the trained model")] = None,
    seed: Seed = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Make pairs of videos and label them."""
    if context.invoked_subcommand is not None:
        return
    from vpo_kit.library.pair import make_pairs

    if output is None:
        raise ConfigError("vpo pair: give --output DIR for the set")
    make_pairs(
        output,
        strategy=strategy,
        prompts=prompts,
        videos=videos,
        model=model,
        lora=lora,
        label=label,
        seed=seed or 0,
        config=config,
        **of_call(set_, make_pairs),
    )
